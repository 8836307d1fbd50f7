"""Resizing: the sizes that come out, and the arguments that are refused."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(20, 30), [20, 30], 17, np.int64(17)])
def test_an_image_gets_the_size_that_tensorpack_gives_it(tensorpack: ModuleType, shape: Any) -> None:
    theirs = tensorpack.imgaug.Resize(shape if isinstance(shape, list | tuple) else int(shape), cv2.INTER_AREA)
    assert np.array_equal(imgaug.Resize(shape, cv2.INTER_AREA).augment(IMAGE), theirs.augment(IMAGE))


@pytest.mark.parametrize("shape", [(40, 50), (50, 40), (33, 33), (41, 97)])
def test_the_shorter_edge_gets_its_length_as_in_tensorpack(tensorpack: ModuleType, shape: tuple[int, int]) -> None:
    img = cv2.resize(IMAGE, shape)
    ours = imgaug.ResizeShortestEdge(31).augment(img)
    assert min(ours.shape[:2]) == 31
    assert np.array_equal(ours, tensorpack.imgaug.ResizeShortestEdge(31).augment(img))


@pytest.mark.parametrize("size", [0, -3, (1, 2, 3), (4, 0), 2.5, "ab", None])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"shape is .*positive whole numbers"):
        imgaug.Resize(size)
    if isinstance(size, int):
        with pytest.raises(ConfigError, match="size is"):
            imgaug.ResizeShortestEdge(size)


@given(h=st.integers(1, 60), w=st.integers(1, 60), threshold=st.sampled_from([0.1, 0.3]))
def test_a_random_size_keeps_to_its_ranges(h: int, w: int, threshold: float) -> None:
    img = np.zeros((h, w), np.uint8)
    tfm = imgaug.RandomResize((0.5, 1.5), (0.6, 1.4), (9, 8), threshold).get_transform(img)
    assert (tfm.new_h, tfm.new_w) == (h, w) or abs(tfm.new_w / tfm.new_h * h / w - 1) <= threshold + 1e-5
    assert tfm.new_w <= max(9, 1.5 * w + 0.5)
    assert tfm.new_h <= max(8, 1.4 * h + 0.5)
    if (tfm.new_h, tfm.new_w) != (h, w):
        assert tfm.new_w >= 9
        assert tfm.new_h >= 8


@given(h=st.integers(1, 60), w=st.integers(1, 60))
def test_a_random_size_in_pixels_keeps_the_ratio_when_told(h: int, w: int) -> None:
    tfm = imgaug.RandomResize((20, 30), aspect_ratio_thres=0).get_transform(np.zeros((h, w), np.uint8))
    assert 20 <= tfm.new_w <= 30
    assert tfm.new_h >= 1
    assert abs(tfm.new_h - tfm.new_w * h / w) <= 0.5 + 0.5 * h / w or tfm.new_h == 1


def test_an_image_for_which_no_size_is_found_keeps_its_own(caplog: pytest.LogCaptureFixture) -> None:
    resize = imgaug.RandomResize((0.1, 0.2), (5.0, 6.0))
    with caplog.at_level(logging.WARNING, "dfserve.dataflow"):
        assert resize.augment(IMAGE).shape == IMAGE.shape
    assert "40 x 50" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"xrange": (0.5, 1.5)}, "needs a yrange"),
        ({"xrange": (0.5, 1.5), "yrange": (10, 20)}, "both ints"),
        ({"xrange": (0.5, 1.5), "yrange": (0.5, 1.0), "aspect_ratio_thres": 0}, "leave yrange out"),
        ({"xrange": (1.5, 0.5), "aspect_ratio_thres": 0}, "xrange is"),
        ({"xrange": (0, 0.5), "aspect_ratio_thres": 0}, "xrange is"),
        ({"xrange": 0.5, "aspect_ratio_thres": 0}, "xrange is"),
        ({"xrange": (0.5, 1.5), "yrange": (0.5, 1.5), "aspect_ratio_thres": -1}, "aspect_ratio_thres is -1"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imgaug.RandomResize(**arguments)
