"""Brightness, contrast, gamma, clipping: what tensorpack computes, but rounded where it cuts off."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)

CASES: list[tuple[str, tuple[Any, ...], Any]] = [
    ("Brightness", (30,), np.float32(13.4)),
    ("Brightness", (30, False), np.float32(-29.9)),
    ("BrightnessScale", ((0.6, 1.4),), np.float32(1.31)),
    ("Contrast", ((0.6, 1.4),), np.float32(0.73)),
    ("Contrast", ((0.6, 1.4), True), np.float32(1.33)),
    ("Contrast", ((0.6, 1.4), False, False), np.float32(1.33)),
    ("Gamma", (), np.float32(0.31)),
    ("Gamma", (), np.float32(-0.4)),
]


@pytest.mark.parametrize(("name", "arguments", "drawn"), CASES)
@pytest.mark.parametrize("shape", [(31, 17, 3), (31, 51)])
def test_an_image_of_uint8_is_tensorpacks_where_that_cuts_off_and_this_rounds(
    tensorpack: ModuleType, name: str, arguments: tuple[Any, ...], drawn: Any, shape: tuple[int, ...]
) -> None:
    img = IMAGE.reshape(shape)
    ours = getattr(imgaug, name)(*arguments)._augment(img, drawn)
    theirs = getattr(tensorpack.imgaug, name)(*arguments)._augment(img, drawn)
    difference = ours.astype(int) - theirs
    assert difference.min() >= 0
    assert difference.max() <= 1
    assert (name == "Brightness") or 0.2 < difference.mean() < 0.8


@pytest.mark.parametrize(("name", "arguments", "drawn"), CASES[:-2])
def test_an_image_of_floating_point_is_tensorpacks(
    tensorpack: ModuleType, name: str, arguments: tuple[Any, ...], drawn: Any
) -> None:
    img = IMAGE.astype(np.float32)
    ours = getattr(imgaug, name)(*arguments)._augment(img, drawn)
    theirs = getattr(tensorpack.imgaug, name)(*arguments)._augment(img, drawn)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_gamma_keeps_what_lies_between_the_values_of_uint8() -> None:
    img = np.linspace(0, 255, 4000, dtype=np.float32).reshape(40, 100)
    bright = imgaug.Gamma()._augment(img, 0.25)
    assert len(np.unique(bright)) > 3900
    np.testing.assert_allclose(bright, 255 * (img.astype(np.float64) / 255) ** 0.8, atol=1e-3)


def test_brightness_and_contrast_are_drawn_from_their_ranges() -> None:
    grey = np.full((4, 4), 100, np.float32)
    changes = [imgaug.Brightness(20).augment(grey)[0, 0] - 100 for _ in range(50)]
    assert min(changes) >= -20
    assert max(changes) <= 20
    assert min(changes) < 0 < max(changes)
    scales = [imgaug.BrightnessScale((0.5, 2)).augment(grey)[0, 0] / 100 for _ in range(50)]
    assert 0.5 <= min(scales) < 1.25 < max(scales) <= 2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1000, 1000), (10.5, 20.5), (0, float("inf")), (300, 400)])
def test_clip_keeps_the_dtype_whatever_the_bounds(dtype: str, low: float, high: float) -> None:
    img = np.array([[0, 15, 100], [11, 21, 127]], dtype)
    clipped = imgaug.Clip(low, high).augment(img)
    assert clipped.dtype == img.dtype
    expected = np.clip(img.astype(np.float64), low, high)
    if img.dtype.kind in "iu":
        expected = np.clip(expected, np.ceil(low), np.floor(high))
        expected = np.clip(expected, np.iinfo(dtype).min, np.iinfo(dtype).max)
    np.testing.assert_array_equal(clipped, expected.astype(dtype))


def test_numbers_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="delta"):
        imgaug.Brightness(0)
    with pytest.raises(ConfigError, match="gamma is above -1"):
        imgaug.Gamma((-1, 0))
    with pytest.raises(ConfigError, match="min is above max"):
        imgaug.Clip(5, 4)
