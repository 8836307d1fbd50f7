"""Normalizing: tensorpack's numbers, in float32 with numpy 2 as well, and no division by zero."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import imgaug

IMAGE = np.random.default_rng(0).integers(3, 250, (31, 17, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MeanVarianceNormalize", (True,)),
        ("MeanVarianceNormalize", (False,)),
        ("MinMaxNormalize", (0, 255, True)),
        ("MinMaxNormalize", (-1, 1, False)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(31, 17, 3), (31, 51), (31, 51, 1)])
def test_the_numbers_are_tensorpacks(
    tensorpack: ModuleType, name: str, arguments: tuple[Any, ...], dtype: str, shape: tuple[int, ...]
) -> None:
    img = IMAGE.astype(dtype).reshape(shape)
    ours = getattr(imgaug, name)(*arguments).augment(img)
    theirs = getattr(tensorpack.imgaug, name)(*arguments)._augment(img, None)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("all_channel", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_image_of_one_value_becomes_the_lowest_and_not_nan(all_channel: bool, dtype: str) -> None:
    img = np.full((4, 5, 3), 77, dtype)
    assert (imgaug.MinMaxNormalize(2, 9, all_channel).augment(img) == 2).all()
    assert (imgaug.MeanVarianceNormalize(all_channel).augment(img) == 0).all()


def test_a_channel_of_one_value_does_not_disturb_the_others() -> None:
    img = np.dstack([np.full((4, 4), 9, np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)])
    spread = imgaug.MinMaxNormalize(0, 1, all_channel=False).augment(img)
    assert (spread[:, :, 0] == 0).all()
    assert spread[:, :, 1].min() == 0
    assert spread[:, :, 1].max() == 1


def test_a_small_range_far_from_zero_keeps_its_precision() -> None:
    img = np.linspace(100_000, 100_001, 64, dtype=np.float32).reshape(8, 8)
    spread = imgaug.MinMaxNormalize(0, 1).augment(img)
    np.testing.assert_allclose(spread, np.linspace(0, 1, 64).reshape(8, 8), atol=0.01)
