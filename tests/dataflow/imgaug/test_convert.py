"""Conversions: shapes as asked for, values rounded and saturated."""

from __future__ import annotations

from types import ModuleType

import cv2
import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize(("keepdims", "keepshape"), [(True, False), (False, False), (True, True)])
def test_grey_is_tensorpacks(tensorpack: ModuleType, rgb: bool, keepdims: bool, keepshape: bool) -> None:
    ours = imgaug.Grayscale(keepdims, rgb, keepshape).augment(IMAGE)
    theirs = tensorpack.imgaug.Grayscale(keepdims, rgb, keepshape)._augment(IMAGE, None)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", [cv2.COLOR_BGR2HSV, cv2.COLOR_RGB2LAB, cv2.COLOR_BGR2GRAY, cv2.COLOR_BGR2BGRA])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_another_colour_space_is_tensorpacks(tensorpack: ModuleType, mode: int, dtype: str) -> None:
    img = (IMAGE / 255).astype(np.float32) if dtype == "float32" else IMAGE
    theirs = tensorpack.imgaug.ColorSpace(mode)._augment(img, None)
    np.testing.assert_array_equal(imgaug.ColorSpace(mode).augment(img), theirs)


def test_a_flat_image_that_becomes_coloured_has_three_axes_and_not_four() -> None:
    assert imgaug.ColorSpace(cv2.COLOR_GRAY2BGR).augment(IMAGE[:, :, 0]).shape == (31, 17, 3)
    assert imgaug.ColorSpace(cv2.COLOR_GRAY2BGR).augment(IMAGE[:, :, :1]).shape == (31, 17, 3)


def test_an_image_that_cv2_cannot_convert_is_told_with_its_shape() -> None:
    with pytest.raises(DatapointError, match=r"\(31, 17\) and dtype uint8 with mode"):
        imgaug.ColorSpace(cv2.COLOR_BGR2HSV).augment(IMAGE[:, :, 0])


def test_the_same_shape_in_fewer_dimensions_is_refused() -> None:
    with pytest.raises(ConfigError, match="keepdims"):
        imgaug.Grayscale(keepdims=False, keepshape=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "uint16", "int64", "uint64", "bool"])
def test_uint8_is_rounded_and_saturated(dtype: str) -> None:
    values = {"float32": [-3, 0.4, 0.6, 254.6, 300], "int8": [-3, 0, 1, 127], "bool": [False, True]}
    values["float64"] = values["float32"]
    img = np.array([values.get(dtype, [0, 3, 255, 300])], dtype)
    converted = imgaug.ToUint8().augment(img)
    assert converted.dtype == np.uint8
    np.testing.assert_array_equal(converted, np.clip(np.rint(img.astype(np.float64)), 0, 255))


def test_float32_keeps_every_value_of_uint8() -> None:
    converted = imgaug.ToFloat32().augment(IMAGE)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(imgaug.ToUint8().augment(converted), IMAGE)
