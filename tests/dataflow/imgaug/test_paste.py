"""Pasting: the image lies on the background, everywhere it fits, and points move with it."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError

IMAGE = np.random.default_rng(0).integers(1, 256, (5, 8, 3), np.uint8)


@pytest.mark.parametrize("make", [imgaug.CenterPaste, imgaug.RandomPaste])
@given(data=st.data())
def test_a_marked_pixel_is_where_its_point_is(make: type[imgaug.CenterPaste], data: st.DataObject) -> None:
    h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    high, wide = h + data.draw(st.integers(0, 5)), w + data.draw(st.integers(0, 5))
    y, x = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    img = np.zeros((h, w), np.uint8)
    img[y, x] = 255
    transform = make((high, wide)).get_transform(img)
    pasted = transform.apply_image(img)
    ((moved_x, moved_y),) = transform.apply_coords(np.array([[x + 0.5, y + 0.5]], np.float32))
    assert pasted.shape == (high, wide)
    assert pasted[int(moved_y), int(moved_x)] == 255
    assert pasted.sum() == 255


@pytest.mark.parametrize("shape", [(9, 12), (10, 13), (5, 8)])
def test_the_middle_is_tensorpacks(tensorpack: ModuleType, shape: tuple[int, int]) -> None:
    theirs = tensorpack.imgaug.CenterPaste(shape)
    np.testing.assert_array_equal(imgaug.CenterPaste(shape).augment(IMAGE), theirs.augment(IMAGE))


def test_every_place_where_the_image_fits_is_drawn() -> None:
    paste = imgaug.RandomPaste((6, 10))
    places = {tuple(np.argwhere(paste.augment(IMAGE)[:, :, 0])[0]) for _ in range(200)}
    assert places == {(y, x) for y in (0, 1) for x in (0, 1, 2)}


@pytest.mark.parametrize("make", [imgaug.CenterPaste, imgaug.RandomPaste])
def test_an_image_as_large_as_the_background_covers_it(make: type[imgaug.CenterPaste]) -> None:
    np.testing.assert_array_equal(make((5, 8)).augment(IMAGE), IMAGE)


@pytest.mark.parametrize(
    ("value", "dtype", "filled"),
    [(0.4, "uint8", 0), (300, "uint8", 255), (0.4, "float32", np.float32(0.4)), (7, "int64", 7)],
)
def test_the_background_has_the_images_dtype(value: float, dtype: str, filled: float) -> None:
    pasted = imgaug.CenterPaste((7, 10), imgaug.ConstantBackgroundFiller(value)).augment(IMAGE.astype(dtype))
    assert pasted.dtype == dtype
    assert (pasted[0] == filled).all()


def test_image_and_mask_go_to_the_same_place() -> None:
    mask = IMAGE[:, :, 0] > 0
    transform = imgaug.RandomPaste((30, 30)).get_transform(IMAGE)
    np.testing.assert_array_equal(transform.apply_image(mask), transform.apply_image(IMAGE)[:, :, 0] > 0)


class KeepsItsBackground(imgaug.BackgroundFiller):
    """Hands out the same background again and again."""

    def __init__(self, background: np.ndarray) -> None:
        self.background = background

    def _fill(self, background_shape: tuple[int, ...], img: np.ndarray) -> np.ndarray:
        return self.background


def test_a_background_that_its_filler_keeps_is_not_written_into() -> None:
    background = np.zeros((20, 20, 3), np.uint8)
    paste = imgaug.RandomPaste(20, KeepsItsBackground(background))
    for _ in range(5):
        assert (paste.augment(IMAGE)[:, :, 0] > 0).sum() == 5 * 8
    assert not background.any()


def test_a_background_of_another_shape_is_an_error_that_names_the_filler() -> None:
    with pytest.raises(DatapointError, match=r"KeepsItsBackground made .*\(20, 20\).* not \(20, 20, 3\)"):
        imgaug.CenterPaste(20, KeepsItsBackground(np.zeros((20, 20), np.uint8))).augment(IMAGE)


def test_images_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatapointError, match=r"\(5, 8, 3\) does not fit on a background of 9 x 7"):
        imgaug.RandomPaste((9, 7)).augment(IMAGE)
    with pytest.raises(DatapointError, match="5 x 8 pixels"):
        imgaug.CenterPaste(9).get_transform(IMAGE).apply_image(IMAGE[1:])
    with pytest.raises(ConfigError, match="background_shape"):
        imgaug.CenterPaste((0, 5))
    with pytest.raises(NotImplementedError, match="does not define _fill"):
        imgaug.CenterPaste(9, imgaug.BackgroundFiller()).augment(IMAGE)
