"""Hue, saturation and lighting: what tensorpack computes, but rounded where it cuts off."""

from __future__ import annotations

import colorsys
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
PCA = (0.1, [55.46, 4.794, 1.148], [[-0.57, 0.72, 0.40], [-0.58, 0.0, -0.81], [-0.58, -0.69, 0.42]])

CASES: list[tuple[str, tuple[Any, ...], Any]] = [
    ("Hue", (), np.float32(33)),
    ("Hue", ((0, 180), False), np.float32(-70)),
    ("Saturation", (), np.float32(1.2)),
    ("Saturation", (0.4, False), np.float32(0.7)),
    ("Saturation", (0.4, False, False), np.float32(1.3)),
    ("Lighting", PCA, np.array([0.1, -0.2, 0.05], np.float32)),
]


@pytest.mark.parametrize(("name", "arguments", "drawn"), CASES)
def test_an_image_of_uint8_is_tensorpacks_where_that_cuts_off_and_this_rounds(
    tensorpack: ModuleType, name: str, arguments: tuple[Any, ...], drawn: Any
) -> None:
    ours = getattr(imgaug, name)(*arguments)._augment(IMAGE, drawn)
    theirs = getattr(tensorpack.imgaug, name)(*arguments)._augment(IMAGE, drawn)
    difference = ours.astype(int) - theirs
    assert difference.min() >= 0
    assert difference.max() <= (0 if name == "Hue" else 1)


@pytest.mark.parametrize(("name", "arguments", "drawn"), CASES)
def test_an_image_of_floating_point_is_tensorpacks(
    tensorpack: ModuleType, name: str, arguments: tuple[Any, ...], drawn: Any
) -> None:
    img = IMAGE.astype(np.float32)
    ours = getattr(imgaug, name)(*arguments)._augment(img, drawn)
    theirs = getattr(tensorpack.imgaug, name)(*arguments)._augment(img, drawn)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("turn", [-300, -90, -1, 0, 59.6, 90, 179.9, 180, 500])
def test_hue_turns_the_angle_and_nothing_else(dtype: str, turn: float) -> None:
    img = np.array([[[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]]], dtype)
    turned = imgaug.Hue()._augment(img, turn)
    for before, after in zip(img[0] / 255, turned[0] / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb((hue + turn / 180) % 1, saturation, value)
        np.testing.assert_allclose(after, expected, atol=0.03 if dtype == "uint8" else 1e-3)


def test_saturation_zero_would_be_grey_and_one_is_the_image() -> None:
    np.testing.assert_array_equal(imgaug.Saturation()._augment(IMAGE, 1.0), IMAGE)
    grey = imgaug.Saturation(rgb=False)._augment(IMAGE, 0.0)
    np.testing.assert_array_equal(grey[:, :, 0], cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY))


def test_lighting_adds_one_colour_everywhere() -> None:
    img = np.full((5, 6, 3), 100, np.float32)
    lit = imgaug.Lighting(*PCA).augment(img)
    assert np.ptp(lit.reshape(-1, 3), axis=0).max() == 0
    assert (lit != 100).all()


def test_numbers_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="alpha"):
        imgaug.Saturation(1)
    with pytest.raises(ConfigError, match=r"\(2,\) and \(3, 3\)"):
        imgaug.Lighting(0.1, [1, 2], np.eye(3))
