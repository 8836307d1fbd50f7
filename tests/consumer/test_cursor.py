"""Tests of the place in a block: one by one and many at a time, in any order, each datapoint is handed out once."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from dfserve.consumer.cursor import Cursor


def one_by_one(cursor: Cursor) -> Iterator[int]:
    """Iterate as a stream does."""
    while True:
        yield from cursor.unfolded
        if not cursor.unfold():
            return


@given(st.integers(0, 20), st.lists(st.integers(0, 6)))
def test_each_datapoint_is_handed_out_once_and_in_order(count: int, turns: list[int]) -> None:
    cursor = Cursor(range(count))
    loop = one_by_one(cursor)
    seen: list[int] = []
    for most in [*turns, count]:
        if most:
            run = cursor.take(most)
            assert len(run) == min(most, count - len(seen))
            seen += run
        else:
            seen += [number for number in (next(loop, None),) if number is not None]
            loop = one_by_one(cursor)
        assert cursor.left == count - len(seen)
    assert seen == list(range(count))


def test_a_loop_that_is_still_open_does_not_hand_out_what_was_taken_together() -> None:
    cursor = Cursor(range(6))
    loop = one_by_one(cursor)
    assert next(loop) == 0
    assert list(cursor.take(2)) == [1, 2]
    assert next(loop) == 3
    assert list(cursor.take(9)) == [4, 5]
    assert list(loop) == []


def test_two_loops_share_a_block() -> None:
    cursor = Cursor(range(6))
    one, other = one_by_one(cursor), one_by_one(cursor)
    assert [next(one), next(other), next(one)] == [0, 1, 2]
    assert cursor.unfold()
    assert cursor.left == 3
    assert [next(other), *one] == [3, 4, 5]
    assert list(other) == []
    assert not cursor.unfold()


def test_a_block_that_was_handed_out_is_not_kept() -> None:
    class Block(list[int]):
        pass

    import gc
    import weakref

    for use in (lambda cursor: cursor.take(9), lambda cursor: list(one_by_one(cursor))):
        block = Block([1, 2, 3])
        gone = weakref.ref(block)
        cursor = Cursor(block)
        del block
        assert list(use(cursor)) == [1, 2, 3]
        gc.collect()
        assert gone() is None
