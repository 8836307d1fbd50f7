"""Tests of datapoints that are made when they are looked at: any slice of a block is that slice of its list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.wire.blocks import Rows, decode_block, encode_block, open_block

KINDS: dict[str, Callable[[int], Any]] = {
    "lists": lambda n: [np.full((2, 3), n, "<f4"), n, str(n)],
    "tuples": lambda n: (np.int16(n), np.array(n), b"x"),
    "dicts": lambda n: {"ragged": np.arange(n % 3), 1: [n]},
    "dicts of three": lambda n: {"b": n, "a": np.float32(n), None: str(n)},
    "dicts of four": lambda n: {"b": n, "a": n + 1, None: str(n), "c": -n},
    "texts in arrays": lambda n: [np.array([str(n)] * 2, "<U4")],
    "no components": lambda n: [],
    "empty dicts": lambda n: {},
}


def opened(kind: str, count: int) -> tuple[Rows, list[Any]]:
    frames = encode_block(map(KINDS[kind], range(count))).frames
    return open_block(frames), decode_block(frames)


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 12), st.data())
def test_a_slice_of_a_slice_is_that_of_the_list(same: Any, kind: str, count: int, data: st.DataObject) -> None:
    rows, listed = opened(kind, count)
    for _ in range(2):
        start, stop = data.draw(st.integers(-count, count)), data.draw(st.integers(-count, count))
        rows, listed = rows[start:stop], listed[start:stop]
        assert len(rows) == len(listed)
        assert bool(rows) == bool(listed)
        assert same(list(rows), listed)
        assert same([rows[place] for place in range(-len(rows), len(rows))], listed + listed)


def test_the_iterator_knows_how_many_are_left() -> None:
    rows = iter(opened("lists", 5)[0])
    next(rows)
    assert rows.__length_hint__() == 4  # type: ignore[attr-defined]  # a list's has it


def test_a_place_beyond_the_end_and_a_step_are_refused() -> None:
    rows = opened("lists", 5)[0]
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(ValueError, match="step 1, not 2"):
        rows[::2]
