"""Crops: where they may lie, how often, and what is refused."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError


def image(h: int, w: int) -> np.ndarray:
    return np.arange(h * w, dtype=np.float32).reshape(h, w)


def test_the_middle_is_tensorpacks(tensorpack: ModuleType) -> None:
    for crop in (10, (10, 11), (9, 12), (15, 20)):
        ours = imgaug.CenterCrop(crop).augment(image(15, 20))
        assert np.array_equal(ours, tensorpack.imgaug.CenterCrop(crop).augment(image(15, 20)))


def test_every_place_is_as_likely_as_the_others() -> None:
    crop = imgaug.RandomCrop((3, 2))
    crop.rng = np.random.RandomState(0)
    places = Counter((tfm.y0, tfm.x0) for tfm in (crop.get_transform(image(5, 4)) for _ in range(4500)))
    assert len(places) == 9
    assert all(400 < count < 600 for count in places.values())


def test_every_shape_and_place_of_a_random_shape_is_reached() -> None:
    crop = imgaug.RandomCropRandomShape(2, 1, wmax=3, hmax=2)
    crop.rng = np.random.RandomState(0)
    drawn = {(t.h, t.w, t.y0, t.x0) for t in (crop.get_transform(image(4, 4)) for _ in range(2000))}
    assert drawn == {(h, w, y, x) for h in (1, 2) for w in (2, 3) for y in range(5 - h) for x in range(5 - w)}


@given(h=st.integers(4, 40), w=st.integers(4, 40), wmax=st.integers(4, 60))
def test_a_random_shape_is_never_larger_than_the_image(h: int, w: int, wmax: int) -> None:
    part = imgaug.RandomCropRandomShape(4, 3, wmax=wmax).augment(image(h, w))
    assert 3 <= part.shape[0] <= h
    assert 4 <= part.shape[1] <= min(w, wmax)


@pytest.mark.parametrize(
    "augmentor",
    [imgaug.RandomCrop((20, 10)), imgaug.CenterCrop((20, 10)), imgaug.RandomCropRandomShape(10, 20)],
    ids=repr,
)
def test_an_image_smaller_than_the_part_is_refused_with_both_sizes(augmentor: imgaug.ImageAugmentor) -> None:
    assert augmentor.augment(image(20, 10)).shape == (20, 10)
    for h, w in [(19, 10), (20, 9)]:
        with pytest.raises(DatapointError, match=rf"20 x 10 .* {h} x {w}: resize it first"):
            augmentor.augment(image(h, w))


@pytest.mark.parametrize("crop_shape", [0, (5, -1), (1, 2, 3), 2.5])
def test_a_part_without_a_size_is_refused(crop_shape: Any) -> None:
    for kind in (imgaug.RandomCrop, imgaug.CenterCrop):
        with pytest.raises(ConfigError, match="crop_shape is"):
            kind(crop_shape)


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (5, 3, 4), (3, 5, 4, 4)])
def test_least_sizes_above_the_greatest_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="in pixels"):
        imgaug.RandomCropRandomShape(*arguments)


def test_the_argument_that_never_had_an_effect_is_told() -> None:
    with pytest.warns(DeprecationWarning, match="max_aspect_ratio"):
        imgaug.RandomCropRandomShape(3, 3, max_aspect_ratio=2)


def test_the_standard_crop_has_the_areas_and_ratios_of_its_ranges() -> None:
    crop = imgaug.GoogleNetRandomCropAndResize()
    crop.rng = np.random.RandomState(0)
    img = image(375, 500)
    boxes = [crop.get_transform(img).tfms[0] for _ in range(4000)]
    areas = np.array([box.h * box.w for box in boxes]) / (375 * 500)
    ratios = np.array([box.w / box.h for box in boxes])
    assert areas.min() > 0.078
    assert areas.min() < 0.09
    assert areas.max() > 0.97
    # Of all areas; the largest ones fit less often, which is the algorithm's.
    assert 0.4 < areas.mean() < 0.54
    assert ratios.min() == pytest.approx(0.75, abs=0.01)
    assert ratios.max() == pytest.approx(1 / 0.75, abs=0.02)
    places = [box.x0 / (501 - box.w) for box in boxes]
    assert min(places) == 0
    assert max(places) > 0.99


def test_the_standard_crop_is_distributed_as_tensorpacks(tensorpack: ModuleType) -> None:
    ours, theirs = imgaug.GoogleNetRandomCropAndResize(), tensorpack.imgaug.GoogleNetRandomCropAndResize()
    ours.rng, theirs.rng = np.random.RandomState(1), np.random.RandomState(2)
    img = image(375, 500)

    def quantiles(crop: Any) -> np.ndarray:
        boxes = [crop.get_transform(img).tfms[0] for _ in range(4000)]
        numbers = [[b.h, b.w, b.y0 + b.h / 2, b.x0 + b.w / 2] for b in boxes]
        return np.quantile(numbers, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0)

    assert quantiles(ours) == pytest.approx(quantiles(theirs), rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 20), (5, 5)])
def test_the_standard_crop_works_on_extreme_images(shape: tuple[int, int]) -> None:
    crop = imgaug.GoogleNetRandomCropAndResize(target_shape=32)
    for _ in range(5):
        assert crop.augment(image(*shape)).shape == (32, 32)


def test_where_no_part_fits_the_square_in_the_middle_is_taken() -> None:
    crop = imgaug.GoogleNetRandomCropAndResize(target_shape=10)
    assert np.array_equal(crop.augment(image(10, 3001)), image(10, 3001)[:, 1495:1505])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_area_fraction": (0.5, 1.5)}, "crop_area_fraction is"),
        ({"crop_area_fraction": 0.5}, "crop_area_fraction is"),
        ({"aspect_ratio_range": (1.333, 0.75)}, "aspect_ratio_range is"),
        ({"target_shape": 0}, "target_shape is 0"),
        ({"target_shape": (224, 224)}, "target_shape is"),
    ],
)
def test_ranges_that_make_no_crop_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imgaug.GoogleNetRandomCropAndResize(**arguments)
