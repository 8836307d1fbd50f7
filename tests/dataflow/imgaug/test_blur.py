"""Gaussian blur: cv2's, with the window drawn."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)


@pytest.mark.parametrize("drawn", [((3, 3), (0.0, 0.0)), ((5, 1), (1.5, 0.5))])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_blur_is_tensorpacks(
    tensorpack: ModuleType, drawn: tuple[tuple[int, int], tuple[float, float]], dtype: str
) -> None:
    img = IMAGE.astype(dtype)
    theirs = tensorpack.imgaug.GaussianBlur()._augment(img, drawn)
    np.testing.assert_array_equal(imgaug.GaussianBlur()._augment(img, drawn), theirs)


def test_windows_are_drawn_from_the_range_and_alike_for_x_and_y_unless_told_otherwise() -> None:
    drawn = [imgaug.GaussianBlur((1, 4), (0.5, 2))._get_augment_params(IMAGE) for _ in range(60)]
    assert {size for size, _ in drawn} == {(3, 3), (5, 5), (7, 7)}
    assert all(0.5 <= x == y < 2 for _, (x, y) in drawn)
    askew = [imgaug.GaussianBlur(4, (0, 2), symmetric=False)._get_augment_params(IMAGE) for _ in range(60)]
    assert len({size for size, _ in askew}) > 4
    assert all(x != y for _, (x, y) in askew)


def test_the_old_name_of_the_range_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="max_size"):
        blur = imgaug.GaussianBlur(max_size=7)
    assert blur.size_range == (0, 7)


@pytest.mark.parametrize("sizes", [0, (2, 2), (-1, 3)])
def test_an_empty_range_is_refused(sizes: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="size_range"):
        imgaug.GaussianBlur(sizes)


@pytest.mark.parametrize("sigmas", [3, (-1, 2)])
def test_sigmas_that_cannot_be_are_refused(sigmas: object) -> None:
    with pytest.raises(ConfigError, match="sigma_range"):
        imgaug.GaussianBlur(3, sigmas)
