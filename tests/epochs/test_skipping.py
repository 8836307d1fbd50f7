"""Passing over a part of an epoch: by rows where the order is strict, else by splits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.epochs.skipping import skip, skip_rows
from dfserve.epochs.state import State
from dfserve.errors import ConfigError

STRICT = State(
    version=1, pipeline="train", source="3fa9", n=1000, seed=7, shuffle=True, order="strict", split_size=8, world=2,
    stride=32, even="drop", batch=32, epoch=3, split=20, start=150, row=2, taken=24,
)  # fmt: skip
ARRIVAL = replace(STRICT, order="arrival", world=1, even=None, split=0, start=0, row=0, taken=0)


def done(state: State) -> set[int]:
    return {split for first, last in state.done for split in range(first, last)}


def items(state: State) -> set[int]:
    return {split * state.split_size + i for split in done(state) for i in range(state.items_of(split))}


def test_rows_are_skipped_from_where_each_rank_is() -> None:
    assert skip_rows(STRICT, 5) == replace(STRICT, row=7)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (64, 1), (65, 2), (640, 10)])
def test_items_become_whole_rows_in_strict_order(count: int, rows: int) -> None:
    assert skip(STRICT, count) == (replace(STRICT, row=2 + rows), 64 * rows)


@pytest.mark.parametrize("rows", [0, -1, 1 << 62])
def test_a_number_of_rows_that_cannot_be_is_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match=f"rows to skip: {rows}"):
        skip_rows(STRICT, rows)


def test_rows_are_of_the_strict_order_only() -> None:
    with pytest.raises(ConfigError, match="order='arrival'"):
        skip_rows(ARRIVAL, 1)


@pytest.mark.parametrize("state", [STRICT, ARRIVAL], ids=["strict", "arrival"])
def test_no_more_is_skipped_than_the_epoch_has_left(state: State) -> None:
    for count in (0, -5, 1001):
        with pytest.raises(ConfigError, match=f"items to skip: {count}"):
            skip(state, count)
    with pytest.raises(ConfigError, match="824 of 1000 left"):
        skip(STRICT, 825)
    with pytest.raises(ConfigError, match="96 of 1000 left"):
        skip(replace(ARRIVAL, done=((0, 113),)), 97)


def test_the_rest_of_an_open_split_goes_first() -> None:
    opened = replace(ARRIVAL, done=((0, 3), (5, 9)), open=((4, 5),))
    assert skip(opened, 3) == (replace(opened, done=((0, 3), (4, 9)), open=()), 3)
    assert skip(opened, 4) == (replace(opened, done=((0, 9),), open=()), 11)
    # A split that made more outputs than it has items has nothing left to count.
    assert skip(replace(opened, open=((4, 50),)), 8) == (replace(opened, done=((0, 9),), open=()), 8)


@given(st.integers(1, 200), st.integers(1, 30), st.data())
def test_what_is_skipped_is_what_is_done_afterwards_and_was_not_before(n: int, size: int, data: st.DataObject) -> None:
    state = replace(ARRIVAL, n=n, split_size=size)
    over = data.draw(st.sets(st.integers(0, state.splits - 1)))
    edges = [split for split in range(state.splits + 1) if (split in over) != (split - 1 in over)]
    state = replace(state, done=tuple(zip(edges[::2], edges[1::2], strict=True)))
    left = n - len(items(state))
    count = data.draw(st.integers(1, n))
    if count > left:
        with pytest.raises(ConfigError, match=f"{left} of {n} left"):
            skip(state, count)
        return
    after, skipped = skip(state, count)
    assert State.from_dict(after.to_dict()) == after
    assert items(after) > items(state)
    assert len(items(after) - items(state)) == skipped
    assert count <= skipped < count + size
    # The first that were not done.
    new = done(after) - done(state)
    assert all(split in done(after) for split in range(max(new)))
