"""Cutout: a rectangle within the image, of the size drawn, anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError

IMAGE = np.full((20, 30, 3), 9, np.uint8)


def box(cut: np.ndarray) -> tuple[int, int, int, int]:
    """Return y0, x0, h, w of what is blank, and see that it is a rectangle."""
    rows, columns = np.nonzero(cut[:, :, 0] != 9)
    y0, x0, h, w = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
    assert (cut[y0 : y0 + h, x0 : x0 + w] != 9).all()
    assert len(rows) == h * w
    return int(y0), int(x0), int(h), int(w)


def test_a_number_is_the_size_and_a_range_is_drawn_from() -> None:
    boxes = [box(imgaug.RandomCutout(6, (4, 7)).augment(IMAGE)) for _ in range(80)]
    assert {h for _, _, h, _ in boxes} == {6}
    assert {w for _, _, _, w in boxes} == {4, 5, 6}


def test_every_place_in_the_image_is_cut_from_its_first_row_to_its_last() -> None:
    cutout = imgaug.RandomCutout(18, 30)
    assert {box(cutout.augment(IMAGE))[:2] for _ in range(80)} == {(0, 0), (1, 0), (2, 0)}
    assert box(imgaug.RandomCutout(20, 30).augment(IMAGE)) == (0, 0, 20, 30)


@pytest.mark.parametrize(("fill", "dtype", "value"), [(300, "uint8", 255), (-5.0, "uint8", 0), (0.5, "float32", 0.5)])
def test_the_value_is_saturated_in_integers(fill: float, dtype: str, value: float) -> None:
    cut = imgaug.RandomCutout(20, 30, fill).augment(IMAGE.astype(dtype))
    assert cut.dtype == dtype
    assert (cut == value).all()


def test_the_mask_is_cut_at_the_same_place() -> None:
    mask = np.full((20, 30), 9, np.int64)
    transform = imgaug.RandomCutout(5, 5).get_transform(IMAGE)
    np.testing.assert_array_equal(transform.apply_image(mask) == 9, transform.apply_image(IMAGE)[:, :, 0] == 9)


def test_a_rectangle_larger_than_the_image_is_an_error_with_both_sizes() -> None:
    with pytest.raises(DatapointError, match=r"21 x 5 pixels.*\(20, 30, 3\)"):
        imgaug.RandomCutout(21, 5).augment(IMAGE)


@pytest.mark.parametrize("size", [0, -3, (5, 5), (0, 4)])
def test_sizes_that_cannot_be_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="w_range"):
        imgaug.RandomCutout(4, size)
