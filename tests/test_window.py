"""Owns the tests of the rule for how much may be in flight."""

from __future__ import annotations

import pytest

from dfserve.errors import ConfigError
from dfserve.window import CEILING_BYTES, FLOOR_BLOCKS, FLOOR_BYTES, Window


@pytest.mark.parametrize("hwm", [0, -1])
def test_a_high_water_mark_counts_datapoints_and_is_at_least_one(hwm: int) -> None:
    with pytest.raises(ConfigError, match=f"hwm is {hwm}; it counts datapoints in flight and must be at least 1"):
        Window(hwm)


def test_between_the_bounds_datapoints_count() -> None:
    window, nbytes = Window(50), (FLOOR_BYTES + CEILING_BYTES) // 2
    assert window.has_room(FLOOR_BLOCKS, 49, nbytes)
    assert not window.has_room(FLOOR_BLOCKS, 50, nbytes)


def test_small_datapoints_are_not_counted_below_the_floor() -> None:
    assert Window(1).has_room(100, 10_000, FLOOR_BYTES - 1)
    assert not Window(1).has_room(100, 10_000, FLOOR_BYTES)
    assert Window(1, 2 * FLOOR_BYTES).has_room(100, 10_000, FLOOR_BYTES)


def test_large_datapoints_stop_at_the_ceiling_whatever_the_mark() -> None:
    assert Window(10**9).has_room(3, 3, CEILING_BYTES - 1)
    assert not Window(10**9).has_room(3, 3, CEILING_BYTES)


def test_there_is_always_room_for_one_block_on_its_way_and_one_in_the_making() -> None:
    huge = 10 * CEILING_BYTES
    assert [Window(1).has_room(blocks, 10**6, huge) for blocks in range(4)] == [True, True, False, False]
