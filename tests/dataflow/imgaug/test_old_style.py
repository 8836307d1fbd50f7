"""Augmentors in tensorpack's older style, in which the policy is spread over several methods, work as the new ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.dataflow.imgaug import transform
from dfserve.errors import DfserveError

IMAGE = np.arange(40 * 50, dtype=np.uint8).reshape(40, 50)
POINTS = np.array([[0.5, 0.5], [30.5, 20.5]])


class OldCrop(imgaug.ImageAugmentor):
    """All three methods, and neither the parent's constructor nor a reset."""

    def __init__(self, size: int) -> None:
        self._init(locals())

    def _get_augment_params(self, img: np.ndarray) -> tuple[int, int]:
        h, w = img.shape[:2]
        return self.rng.randint(h - self.size + 1), self.rng.randint(w - self.size + 1)

    def _augment(self, img: np.ndarray, param: tuple[int, int]) -> np.ndarray:
        y, x = param
        return img[y : y + self.size, x : x + self.size]

    def _augment_coords(self, coords: np.ndarray, param: tuple[int, int]) -> np.ndarray:
        return coords - [param[1], param[0]]


class OldInvert(imgaug.ImageAugmentor):
    """No parameters, no points."""

    def _augment(self, img: np.ndarray, _: Any) -> np.ndarray:
        return 255 - img


class OldTransform(transform.TransformAugmentorBase):
    """Parameters that are a transform already."""

    def _get_augment_params(self, img: np.ndarray) -> imgaug.Transform:
        return imgaug.FlipTransform(*img.shape[:2], horiz=bool(self.rng.randint(2)))


class OldMeta(OldTransform):
    """As above, with an _augment of its own, which counts."""

    def _augment(self, img: np.ndarray, params: imgaug.Transform) -> np.ndarray:
        return params.apply_image(img) + np.uint8(1)


class OldAllAtOnce(imgaug.ImageAugmentor):
    """Parameters that come from augmenting, here in place."""

    def _augment_return_params(self, img: np.ndarray) -> tuple[np.ndarray, int]:
        lowest = int(img.min())
        return self._augment(img, lowest), lowest

    def _augment(self, img: np.ndarray, lowest: int) -> np.ndarray:
        img -= img.dtype.type(lowest)
        return img


class OldPublic(imgaug.ImageAugmentor):
    """The names of tensorpack's first versions."""

    def get_augment_params(self, img: np.ndarray) -> int:
        return img.shape[1]

    def _augment(self, img: np.ndarray, _: int) -> np.ndarray:
        return img[:, ::-1]

    def augment_coords(self, coords: np.ndarray, w: int) -> np.ndarray:
        return np.stack([w - coords[:, 0], coords[:, 1]], axis=1)


class OldRandomApply(imgaug.ImageAugmentor):
    """An augmentor that holds another, and asks it by the methods of the older style."""

    def __init__(self, aug: imgaug.ImageAugmentor, prob: float) -> None:
        self._init(locals())
        super().__init__()

    def reset_state(self) -> None:
        super().reset_state()
        self.aug.reset_state()

    def _get_augment_params(self, img: np.ndarray) -> Any:
        return self.aug._get_augment_params(img) if self.rng.rand() < self.prob else None

    def _augment_return_params(self, img: np.ndarray) -> tuple[np.ndarray, Any]:
        if self.rng.rand() >= self.prob:
            return img, (False, None)
        img, params = self.aug._augment_return_params(img)
        return img, (True, params)

    def _augment(self, img: np.ndarray, param: tuple[bool, Any]) -> np.ndarray:
        return self.aug._augment(img, param[1]) if param[0] else img

    def _augment_coords(self, coords: np.ndarray, param: tuple[bool, Any]) -> np.ndarray:
        return self.aug._augment_coords(coords, param[1]) if param[0] else coords


class RandomApply(imgaug.ImageAugmentor):
    """The same in the new style."""

    def __init__(self, aug: imgaug.ImageAugmentor, prob: float) -> None:
        self._init(locals())
        super().__init__()

    def reset_state(self) -> None:
        super().reset_state()
        self.aug.reset_state()

    def get_transform(self, img: np.ndarray) -> imgaug.Transform:
        return self.aug.get_transform(img) if self.rng.rand() < self.prob else imgaug.NoOpTransform()


OLD = [OldCrop(30), OldInvert(), OldTransform(), OldMeta(), OldAllAtOnce(), OldPublic()]


def nested(old: imgaug.ImageAugmentor) -> list[imgaug.ImageAugmentor]:
    return [
        old,
        imgaug.AugmentorList([imgaug.Transpose(), old, imgaug.Flip(vert=True)]),
        RandomApply(old, 0.7),
        OldRandomApply(old, 0.7),
        OldRandomApply(imgaug.AugmentorList([old, imgaug.Flip(horiz=True)]), 0.7),
        imgaug.AugmentorList([OldRandomApply(RandomApply(old, 0.7), 0.7)]),
    ]


@pytest.mark.parametrize("old", OLD, ids=lambda old: type(old).__name__)
@pytest.mark.parametrize("way", range(6))
def test_what_was_drawn_is_applied_alike_every_time(old: imgaug.ImageAugmentor, way: int) -> None:
    augmentor = nested(old)[way]
    augmentor.reset_state()
    for _ in range(5):
        img = IMAGE.copy()
        tfm = augmentor.get_transform(img)
        augmented, points = tfm.apply_image(img), tfm.apply_coords(POINTS)
        assert np.array_equal(tfm.apply_image(IMAGE.copy()), augmented)
        assert np.array_equal(tfm.apply_coords(POINTS), points)
        augmented, tfm = augmentor.augment_return_params(IMAGE.copy())
        assert np.array_equal(augmentor.augment_with_params(IMAGE.copy(), tfm), augmented)


def test_each_kind_does_what_its_methods_say() -> None:
    for old in OLD:
        old.reset_state()
    crop, invert, flip, meta, lowest, public = (old.get_transform(IMAGE) for old in OLD)
    part = crop.apply_image(IMAGE)
    [[dx, dy], _] = POINTS - crop.apply_coords(POINTS)
    assert np.array_equal(part, IMAGE[int(dy) : int(dy) + 30, int(dx) : int(dx) + 30])
    assert np.array_equal(invert.apply_image(IMAGE), 255 - IMAGE)
    assert invert.apply_coords(POINTS) is POINTS
    assert isinstance(flip, imgaug.FlipTransform)
    mirrored = imgaug.FlipTransform(40, 50, flip.horiz)
    assert np.array_equal(flip.apply_coords(POINTS), mirrored.apply_coords(POINTS))
    assert np.array_equal(np.sort(meta.apply_image(IMAGE), axis=None), np.sort(IMAGE + np.uint8(1), axis=None))
    assert not np.array_equal(meta.apply_coords(POINTS), POINTS)
    assert np.array_equal(lowest.apply_image(IMAGE[20:, 10:] + np.uint8(0)), IMAGE[20:, 10:])
    assert np.array_equal(public.apply_image(IMAGE), IMAGE[:, ::-1])
    assert public.apply_coords(POINTS)[:, 0].tolist() == [49.5, 19.5]


def test_choosing_does_not_change_the_image() -> None:
    img = IMAGE + np.uint8(7)
    before = img.copy()
    OldAllAtOnce().get_transform(img)
    assert np.array_equal(img, before)


def test_built_in_augmentors_answer_to_the_methods_of_the_older_style() -> None:
    for augmentor in (imgaug.RandomCrop(20), imgaug.AugmentorList([imgaug.RandomCrop(20), imgaug.Flip(horiz=True)])):
        img, params = augmentor._augment_return_params(IMAGE)
        assert np.array_equal(augmentor._augment(IMAGE, params), img)
        assert np.array_equal(augmentor._augment_coords(POINTS, params), params.apply_coords(POINTS))
        assert isinstance(augmentor._get_augment_params(IMAGE), transform.BaseTransform)


def test_one_that_was_not_reset_says_so() -> None:
    with pytest.raises(DfserveError, match=r"OldCrop .*reset_state\(\)"):
        OldCrop(3).augment(IMAGE)


def test_one_that_defines_nothing_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="Empty defines neither get_transform nor _augment"):
        type("Empty", (imgaug.ImageAugmentor,), {})().augment(IMAGE)


def test_its_transform_is_printed_with_the_augmentor() -> None:
    crop = OldCrop(3)
    crop.reset_state()
    assert repr(crop.get_transform(IMAGE)) == "imgaug.TransformFactory(imgaug.OldCrop(size=3))"
