"""Pixel arithmetic: rounded to the nearest value, saturated, and the same whatever the way it is computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.imgaug.pixels import as_pixels, channel_means, linear, mean_and_std
from dfserve.errors import DatapointError

EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURED = np.stack([EVERY_VALUE, EVERY_VALUE[::-1], EVERY_VALUE.T], axis=2)
NUMBER = st.floats(-600, 600, width=32)


@given(NUMBER, st.floats(-4, 4, width=32), NUMBER, st.booleans())
def test_a_linear_map_is_rounded_and_saturated_at_every_value(
    centre: float, gain: float, offset: float, each: bool
) -> None:
    exact = np.clip((COLOURED.astype(np.float64) - centre) * gain + offset, 0, 255)
    computed = linear(COLOURED, centre=centre, gain=gain, offset=np.full(3, offset) if each else offset)
    assert computed.dtype == np.uint8
    assert np.abs(computed - exact).max() <= 0.5 + 1e-3  # the tolerance decides what lies between two values


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_each_channel_can_have_numbers_of_its_own(dtype: str) -> None:
    centre, gain, offset = np.array([10, 20, 30]), np.array([1, 0.5, 2]), np.array([0, 1, 2])
    mapped = linear(COLOURED.astype(dtype), centre=centre, gain=gain, offset=offset, dtype=np.float32)
    np.testing.assert_allclose(mapped, (COLOURED.astype(np.float64) - centre) * gain + offset, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "int64", "uint64"])
def test_no_integer_wraps_around(dtype: str) -> None:
    info = np.iinfo(dtype)
    low, high = as_pixels(np.array([-1e30, 1e30]), np.dtype(dtype))
    assert low == info.min
    assert high > info.max * 0.49
    np.testing.assert_array_equal(as_pixels(np.array([1.4, 1.6, 2.5, 3.5]), np.dtype(dtype)), [1, 2, 2, 4])


def test_clipping_goes_to_255_whatever_the_dtype() -> None:
    for dtype in ("uint16", "int32", "float32", "float64"):
        np.testing.assert_array_equal(as_pixels(np.array([-3.0, 300.0]), np.dtype(dtype), clip=True), [0, 255])


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
@pytest.mark.parametrize("channels", [None, 1, 3, 6])
def test_means_and_deviations_are_numpys(dtype: str, channels: int | None) -> None:
    shape = (7, 9) if channels is None else (7, 9, channels)
    img = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    columns = img.reshape(63, channels or 1).astype(np.float64)
    np.testing.assert_allclose(channel_means(img), columns.mean(axis=0))
    np.testing.assert_allclose(mean_and_std(img, together=True), [[columns.mean()], [columns.std()]])
    np.testing.assert_allclose(mean_and_std(img, together=False), [columns.mean(axis=0), columns.std(axis=0)])


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(DatapointError, match="dtype bool"):
        linear(np.ones((3, 3), bool), offset=1.0)
