"""Owns the tests of collecting a split's outputs into one block: what fits, and what does not."""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from dfserve.errors import EncodeError
from dfserve.producer.split_block import BlockOverflow, OutputsDiffer, SplitBlock
from dfserve.wire.blocks import decode_block

MIB = 1 << 20


def collected(outputs: list[Any], expected: int = 1, max_frame: int = 256 * MIB) -> list[Any]:
    block = SplitBlock(expected, 64 * MIB, max_frame)
    for output in outputs:
        block.add(output)
    assert block.count == len(outputs)
    return decode_block(block.close().frames)


@pytest.mark.parametrize("expected", [0, 1, 300, 1000])
def test_all_outputs_are_in_one_block_whatever_their_number(expected: int) -> None:
    images = [[number, np.full((64, 64), number % 256, np.uint8)] for number in range(1000)]
    found = collected(images, expected)
    assert [number for number, _ in found] == list(range(1000))
    assert all((image == number % 256).all() for number, image in found)


@pytest.mark.parametrize("kind", [list, tuple])
def test_components_may_be_of_other_kinds_in_other_outputs(kind: type) -> None:
    values = [1, np.arange(4), np.arange(4.0), np.int8(3), "text", None, [np.zeros((80, 80))], np.ones((80, 80))]
    found = collected([kind([7, value]) for value in values])
    for row, value in zip(found, values, strict=True):
        assert (type(row), row[0], type(row[1])) == (kind, 7, type(value))
        np.testing.assert_array_equal(row[1], value)
        assert getattr(row[1], "dtype", None) == getattr(value, "dtype", None)


def test_arrays_that_pass_a_frames_limit_together_travel_each_in_a_frame_of_its_own() -> None:
    found = collected([{"x": np.full(MIB, number, np.uint8)} for number in range(5)], max_frame=2 * MIB)
    assert [int(row["x"][0]) for row in found] == list(range(5))


def test_what_was_added_is_not_changed_by_what_the_pipeline_does_later() -> None:
    block = SplitBlock(3, MIB, MIB)
    array = np.zeros(5)
    for number in range(3):
        array[:] = number
        block.add([array] if number < 2 else [number])
    assert [np.max(row) for (row,) in decode_block(block.close().frames)] == [0, 1, 2]


@pytest.mark.parametrize("other", [[1, 2], (1,), {"a": 1}], ids=["longer", "a tuple", "a dict"])
def test_outputs_of_another_shape_are_refused_and_no_item_is_blamed(other: Any) -> None:
    with pytest.raises(OutputsDiffer, match="must be lists, all tuples or all dicts") as caught:
        collected([[1], other])
    assert not isinstance(caught.value, Exception)


def test_an_output_that_cannot_travel_is_blamed_and_the_block_is_as_before() -> None:
    block = SplitBlock(2, MIB, MIB)
    block.add([1])
    with pytest.raises(EncodeError, match="component 0"):
        block.add([object()])
    block.add([2])
    assert decode_block(block.close().frames) == [[1], [2]]


def test_a_block_that_exceeds_the_budget_says_how_much_it_was() -> None:
    block = SplitBlock(2, 1000, MIB)
    block.add([bytes(400)])
    with pytest.raises(BlockOverflow) as caught:
        block.add([bytes(700)])
    assert 1100 < caught.value.nbytes < 1300


@pytest.mark.parametrize("output", [[1], [np.zeros(30), 1], {"image": np.zeros((3, 4)), "name": "x"}], ids=repr)
def test_the_budget_holds_for_outputs_that_are_all_alike(output: Any) -> None:
    block = SplitBlock(5000, 20_000, MIB)
    with pytest.raises(BlockOverflow) as caught:
        deque(map(block.add, repeat(output, 20_000)), maxlen=0)
    assert 20_000 < caught.value.nbytes < 20_300
    assert block.close().nbytes == pytest.approx(caught.value.nbytes, abs=100)


def test_a_block_that_is_cleared_begins_anew() -> None:
    block = SplitBlock(2, MIB, MIB)
    block.add([1])
    block.add([np.arange(3)])
    block.clear()
    assert block.count == 0
    block.add((5, 6))
    assert decode_block(block.close().frames) == [(5, 6)]
