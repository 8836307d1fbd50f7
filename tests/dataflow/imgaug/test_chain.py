"""AugmentorList: every policy sees the image as the ones before it left it, and no work is done twice."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError

IMAGE = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
POINTS = np.array([[0.5, 0.5], [30.5, 20.5]])


class Spy(imgaug.ImageAugmentor):
    """Crops one row, and remembers what it saw and how often its transforms ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.applied = 0

    def get_transform(self, img: np.ndarray) -> imgaug.Transform:
        self.seen.append(img.shape)
        crop = imgaug.CropTransform(1, 0, img.shape[0] - 1, img.shape[1])

        def apply_image(img: np.ndarray) -> np.ndarray:
            self.applied += 1
            return crop.apply_image(img)

        return imgaug.TransformFactory(apply_image=apply_image, apply_coords=crop.apply_coords)


def test_each_policy_sees_the_image_as_the_ones_before_left_it() -> None:
    spies = [Spy(), Spy(), Spy()]
    augmented = imgaug.AugmentorList(spies).augment(IMAGE)
    assert augmented.shape == (37, 50)
    assert [spy.seen for spy in spies] == [[(40, 50)], [(39, 50)], [(38, 50)]]
    assert [spy.applied for spy in spies] == [1, 1, 1]


class LookTransform(imgaug.CropTransform):
    """A crop that passes labels on, and knows the lowest value of the image for which it was chosen."""

    def __init__(self, y0: int, x0: int, h: int, w: int, lowest: float) -> None:
        super().__init__(y0, x0, h, w)
        self.lowest = lowest

    def apply_label(self, label: str) -> str:
        return label


class HalfAndLook(imgaug.ImageAugmentor):
    """A random crop of a share of the image's height and width."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, img: np.ndarray) -> imgaug.Transform:
        h, w = (int(side * self.share) for side in img.shape)
        y, x = self.rng.randint(img.shape[0] - h), self.rng.randint(img.shape[1] - w)
        return LookTransform(y, x, h, w, img.min())


FIRST_USES: dict[str, Callable[[Any], object]] = {
    "the image": lambda tfm: tfm.apply_image(IMAGE),
    "another image": lambda tfm: tfm.apply_image(IMAGE + 1),
    "points": lambda tfm: tfm.apply_coords(POINTS),
    "the list": lambda tfm: tfm.tfms,
    "a sum": lambda tfm: tfm + imgaug.NoOpTransform(),
    "something of one's own": lambda tfm: tfm.apply_label("label"),
    "pickling": pickle.dumps,
}


@pytest.mark.parametrize("first", FIRST_USES)
def test_whatever_is_transformed_first_the_choice_is_the_same_for_all(first: str) -> None:
    augmentor = imgaug.AugmentorList([imgaug.Identity(), HalfAndLook(0.5), HalfAndLook(0.5)])
    tfm = augmentor.get_transform(IMAGE)
    FIRST_USES[first](tfm)
    augmented = tfm.apply_image(IMAGE)
    assert np.array_equal(tfm.apply_image(IMAGE), augmented)
    assert np.array_equal(tfm.apply_coords(POINTS), tfm.apply_coords(POINTS))
    assert np.array_equal(pickle.loads(pickle.dumps(tfm)).apply_image(IMAGE), augmented)
    # The policies looked at the image that the list was asked about, not at whatever was transformed first.
    assert [each.lowest for each in tfm.tfms[1:]] == [IMAGE.min(), tfm.tfms[1].apply_image(IMAGE).min()]


def test_the_image_is_not_changed_in_place_when_points_come_first() -> None:
    class Blank(imgaug.PhotometricAugmentor):
        def _augment(self, img: np.ndarray, _: object) -> np.ndarray:
            img[:] = 0
            return img

    img = IMAGE.copy()
    imgaug.AugmentorList([Blank(), imgaug.Flip(horiz=True)]).get_transform(img).apply_coords(POINTS)
    assert np.array_equal(img, IMAGE)


def test_an_error_of_a_policy_is_raised_as_it_is_and_each_time() -> None:
    class Broken(imgaug.ImageAugmentor):
        def get_transform(self, img: np.ndarray) -> imgaug.Transform:
            raise AttributeError("no such thing")

    tfm = imgaug.AugmentorList([imgaug.Identity(), Broken()]).get_transform(IMAGE)
    for use in (tfm.apply_image, tfm.apply_image, tfm.apply_coords):
        with pytest.raises(AttributeError, match="no such thing"):
            use(IMAGE)
    with pytest.raises(DatapointError, match="100 x 100"):
        imgaug.AugmentorList([imgaug.Identity(), imgaug.CenterCrop(100)]).augment(IMAGE)


def test_lists_nest() -> None:
    spies = [Spy(), Spy(), Spy()]
    nested = imgaug.AugmentorList([spies[0], imgaug.AugmentorList(spies[1:])])
    tfm = nested.get_transform(IMAGE)
    assert tfm.apply_image(IMAGE).shape == (37, 50)
    assert [spy.applied for spy in spies] == [1, 1, 1]
    assert np.array_equal(tfm.apply_coords(POINTS), POINTS - [0, 3])


def test_an_empty_list_does_nothing() -> None:
    tfm = imgaug.AugmentorList([]).get_transform(IMAGE)
    assert tfm.apply_image(IMAGE) is IMAGE
    assert tfm.apply_coords(POINTS) is POINTS


def test_a_reset_reaches_every_augmentor() -> None:
    inner = imgaug.RandomCrop(2)
    outer = imgaug.AugmentorList((imgaug.AugmentorList([inner]),))
    before = inner.rng
    outer.reset_state()
    assert inner.rng is not before


@pytest.mark.parametrize(
    ("augmentors", "message"),
    [(imgaug.Identity(), "is a Identity: give a list"), ([imgaug.Identity(), np.fliplr], "augmentor 1 .*MapImage")],
)
def test_what_is_no_list_of_augmentors_is_refused(augmentors: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imgaug.AugmentorList(augmentors)


def test_it_tells_whether_its_transforms_are_chosen() -> None:
    tfm = imgaug.AugmentorList([imgaug.CenterCrop(2)]).get_transform(IMAGE)
    assert "of [imgaug.CenterCrop(crop_shape=(2, 2))]" in repr(tfm)
    tfm.apply_image(IMAGE)
    assert repr(tfm) == "imgaug.TransformList([\n  imgaug.CropTransform(y0=19, x0=24, h=2, w=2)])"
