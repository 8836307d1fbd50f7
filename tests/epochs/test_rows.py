"""Which rank yields what of an epoch: every output once, and equally many everywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.epochs.rows import Rows
from dfserve.errors import ConfigError

rows_of = st.builds(Rows, world=st.integers(1, 6), stride=st.integers(1, 5))
totals = st.integers(0, 200)
starts = st.integers(0, 10**12)
counts = st.integers(0, 80)


def owner(rows: Rows, output: int) -> int:
    return output // rows.stride % rows.world


def outputs_of(rows: Rows, rank: int, total: int) -> list[int]:
    """Return the numbers of the outputs of a whole epoch that belong to the rank."""
    return [g for offsets in rows.ranges(rank, 0, total) for g in offsets]


@given(rows_of, starts, counts)
def test_the_ranges_of_all_ranks_are_every_output_once_each_with_its_owner(rows: Rows, start: int, count: int) -> None:
    owners = {}
    for rank in range(rows.world):
        for offsets in rows.ranges(rank, start, count):
            assert len(offsets) > 0
            assert offsets.step == 1
            for offset in offsets:
                assert offset not in owners
                owners[offset] = rank
    assert owners == {offset: owner(rows, start + offset) for offset in range(count)}


@given(rows_of, starts, counts)
def test_the_ranges_of_a_rank_ascend_and_none_goes_on_where_another_ends(rows: Rows, start: int, count: int) -> None:
    for rank in range(rows.world):
        ranges = rows.ranges(rank, start, count)
        assert all(one.stop < other.start for one, other in pairwise(ranges))


@given(rows_of, starts, counts)
def test_the_ranks_touched_are_those_with_ranges_in_the_order_of_their_first(
    rows: Rows, start: int, count: int
) -> None:
    assert rows.ranks(start, count) == tuple(dict.fromkeys(owner(rows, start + offset) for offset in range(count)))
    assert set(rows.ranks(start, count)) == {rank for rank in range(rows.world) if rows.ranges(rank, start, count)}


def test_the_ranks_of_very_many_outputs_are_told_at_once() -> None:
    assert Rows(4, 3).ranks(7, 10**15) == (2, 3, 0, 1)


@given(rows_of, starts, st.lists(st.integers(0, 20), max_size=6))
def test_blocks_of_any_size_give_each_rank_what_the_whole_does(rows: Rows, start: int, sizes: list[int]) -> None:
    for rank in range(rows.world):
        pieces = []
        begin = start
        for size in sizes:
            pieces += [begin + offset for offsets in rows.ranges(rank, begin, size) for offset in offsets]
            begin += size
        whole = [start + offset for offsets in rows.ranges(rank, start, sum(sizes)) for offset in offsets]
        assert pieces == whole


@given(rows_of, totals)
def test_the_complete_rows_put_together_in_the_order_of_the_ranks_are_the_outputs_that_are_ready(
    rows: Rows, total: int
) -> None:
    ready = rows.ready(total)
    mine = [iter(outputs_of(rows, rank, ready)) for rank in range(rows.world)]
    dealt = [
        next(mine[rank]) for _ in range(ready // rows.size) for rank in range(rows.world) for _ in range(rows.stride)
    ]
    dealt += [g for rank in mine for g in rank]  # one rank also takes what fills no row
    assert dealt == list(range(ready))


@given(rows_of, totals)
def test_what_is_ready_lacks_less_than_a_row_and_only_for_several_ranks(rows: Rows, total: int) -> None:
    assert rows.ready(total) + rows.dropped(total) == total
    assert 0 <= rows.dropped(total) < rows.size
    if rows.world == 1:
        assert rows.ready(total) == total
    else:
        assert rows.ready(total) % rows.size == 0


@given(rows_of, totals)
def test_with_drop_every_rank_has_its_share_of_the_complete_rows(rows: Rows, total: int) -> None:
    for rank in range(rows.world):
        assert len(outputs_of(rows, rank, rows.ready(total))) == rows.share(total, "drop")
    assert rows.share(total, "drop") * rows.world == total - rows.dropped(total)


@given(rows_of, totals)
def test_with_pad_every_rank_has_its_share_of_which_nothing_is_left_out(rows: Rows, total: int) -> None:
    yielded = [outputs_of(rows, rank, total) + rows.padding(rank, total) for rank in range(rows.world)]
    assert {len(outputs) for outputs in yielded} == {rows.share(total, "pad")}
    assert {g for outputs in yielded for g in outputs} == set(range(total))


@given(rows_of, totals)
def test_the_padding_goes_round_the_last_row_and_is_less_than_a_row(rows: Rows, total: int) -> None:
    padding = [g for rank in range(rows.world) for g in rows.padding(rank, total)]
    left = rows.dropped(total)
    assert len(padding) == (rows.size - left if left else 0)
    assert padding == [total - left + place % left for place in range(left, left + len(padding))]


def test_a_last_row_with_one_output_repeats_it_everywhere() -> None:
    rows = Rows(world=3, stride=2)
    assert [rows.padding(rank, 7) for rank in range(3)] == [[6], [6, 6], [6, 6]]


def test_a_last_row_that_lacks_one_repeats_its_first() -> None:
    rows = Rows(world=3, stride=2)
    assert [rows.padding(rank, 11) for rank in range(3)] == [[], [], [6]]


@given(rows_of, st.integers(0, 20))
def test_a_whole_number_of_rows_needs_no_padding_and_drops_nothing(rows: Rows, count: int) -> None:
    total = count * rows.size
    assert rows.dropped(total) == 0
    assert [rows.padding(rank, total) for rank in range(rows.world)] == [[]] * rows.world
    assert rows.share(total, "drop") == rows.share(total, "pad") == count * rows.stride


@given(st.integers(1, 9), totals, starts)
def test_one_rank_has_everything_in_one_piece_without_padding(stride: int, total: int, start: int) -> None:
    rows = Rows(1, stride)
    assert rows.ranges(0, start, total) == ([range(total)] if total else [])
    assert rows.share(total, None) == rows.share(total, "drop") == rows.share(total, "pad") == total
    assert rows.padding(0, total) == []
    assert rows.dropped(total) == 0


@pytest.mark.parametrize("number", [0, -3])
def test_a_world_or_a_stride_below_one_is_refused_with_the_number(number: int) -> None:
    with pytest.raises(ConfigError, match=f"world is {number};"):
        Rows(number, 1)
    with pytest.raises(ConfigError, match=f"stride is {number};"):
        Rows(1, number)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_is_not_there_is_refused(rank: int) -> None:
    for call in (lambda: Rows(2, 1).ranges(rank, 0, 9), lambda: Rows(2, 1).padding(rank, 9)):
        with pytest.raises(ConfigError, match=f"rank is {rank}; with world=2 ranks are 0 to 1"):
            call()


@pytest.mark.parametrize("even", [None, "wrap"])
def test_several_ranks_must_say_what_becomes_of_the_last_row(even: str | None) -> None:
    with pytest.raises(ConfigError, match=f"even is {even!r}; with world=2"):
        Rows(2, 1).share(9, even)
