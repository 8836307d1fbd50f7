"""Tests of what a rank hands out, and of the position that it is at: any blocks, any rows, any place to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.consumer.handout import Handout
from dfserve.epochs.plan import Plan
from dfserve.epochs.state import VERSION, State

Block = tuple[int, int, int]  # split, start, outputs


def plan_of(order: str, world: int = 1, stride: int = 1, even: str = "") -> Plan:
    return Plan("default", 0, True, order, 4, world, stride, even)


def state_of(plan: Plan, n: int) -> State:
    fields = {**plan.to_dict(), "even": plan.even or None}
    return State(version=VERSION, source="00", n=n, batch=0, epoch=0, **fields)


def blocks_of(sizes: list[int]) -> list[Block]:
    found, start = [], 0
    for split, outputs in enumerate(sizes):
        if outputs:
            found.append((split, start, outputs))
        start += outputs
    return found


def handed_out(handout: Handout, blocks: list[Block], total: int, most: int = 1 << 30) -> list[int]:
    """Feed all blocks, with the outputs' numbers for datapoints, and hand out at most so many."""
    found: list[int] = []
    coming: Iterator[Block] = iter(blocks)
    limit = handout.limit(total, final=True)
    while len(found) < most:
        rows = handout.run(limit, most - len(found))
        if rows:
            found += rows
            handout.advance(len(rows))
            continue
        block = next(coming, None)
        if block is None:
            break
        split, start, outputs = block
        handout.add(split, start, 0, range(start, start + outputs), padding=False)
    return found


sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(sizes, st.integers(1, 4), st.integers(1, 5))
def test_all_ranks_together_hand_out_all_complete_rows_in_their_order(
    outputs: list[int], world: int, stride: int
) -> None:
    plan = plan_of("strict", world, stride, "drop" if world > 1 else "")
    total = sum(outputs)
    shares = []
    for rank in range(world):
        handout = Handout(plan, rank, state_of(plan, 4 * len(outputs)), 0)
        shares.append(handed_out(handout, blocks_of(outputs), total))
        assert handout.over(total)
    complete = total if world == 1 else total - total % (world * stride)
    rows = [share[at : at + stride] for at in range(0, len(shares[0]), stride) for share in shares]
    assert [number for row in rows for number in row] == list(range(complete))


@given(sizes, st.integers(1, 3), st.integers(1, 4), st.data())
def test_a_strict_position_goes_on_with_what_would_have_followed(
    outputs: list[int], world: int, stride: int, data: st.DataObject
) -> None:
    plan = plan_of("strict", world, stride, "drop" if world > 1 else "")
    total, blocks = sum(outputs), blocks_of(outputs)
    rank = data.draw(st.integers(0, world - 1))
    begin = state_of(plan, 4 * len(outputs))
    whole = handed_out(Handout(plan, rank, begin, 0), blocks, total)
    most = data.draw(st.integers(0, len(whole)))
    first = Handout(plan, rank, begin, 0)
    assert handed_out(first, blocks, total, most) == whole[:most]
    state = State.from_dict(first.state().to_dict())
    assert state.row * stride + state.taken == most
    rest = [block for block in blocks if block[0] >= state.split]
    assert not rest or rest[0][1] >= state.start
    for other in range(world):  # any rank's position is good for all
        number = state.row * plan.rows.size + other * stride + state.taken
        expected = handed_out(Handout(plan, other, begin, 0), blocks, total)[most:]
        assert handed_out(Handout(plan, other, replace(state), number), rest, total) == expected


@given(sizes, st.permutations(range(12)), st.data())
def test_a_position_in_the_order_of_arrival_names_what_is_done_and_what_is_open(
    outputs: list[int], order: list[int], data: st.DataObject
) -> None:
    plan = plan_of("arrival")
    arriving = [split for split in order if split < len(outputs) and outputs[split]]
    blocks, start = [], 0
    for split in arriving:
        blocks.append((split, start, outputs[split]))
        start += outputs[split]
    most = data.draw(st.integers(0, start))
    handout = Handout(plan, 0, state_of(plan, 4 * len(outputs)), 0)
    assert handed_out(handout, blocks, start, most) == list(range(most))
    state = State.from_dict(handout.state().to_dict())
    done = {split for first, last in state.done for split in range(first, last)}
    count = sum(outputs[split] for split in done) + sum(handed for _, handed in state.open)
    assert count == most
    assert all(0 < handed < outputs[split] for split, handed in state.open)


@given(st.integers(1, 40), st.integers(2, 4), st.integers(1, 5))
def test_padding_makes_the_last_row_whole(total: int, world: int, stride: int) -> None:
    plan = plan_of("strict", world, stride, "pad")
    lengths = set()
    for rank in range(world):
        handout = Handout(plan, rank, state_of(plan, total), 0)
        found: list[Any] = handed_out(handout, [(0, 0, total)], total)
        handout.add(0, 0, 0, range(total), padding=True)
        while not handout.over(total):
            assert handout.pads(total)
            assert handout.has_padding(total)
            found.append(handout.padding(total))
            handout.advance(1)
        lengths.add(len(found))
        assert set(found) <= set(range(total))
    assert lengths == {-(-total // (world * stride)) * stride}


def test_nothing_of_an_incomplete_row_is_handed_out_before_the_end() -> None:
    handout = Handout(plan_of("arrival", 2, 2, "drop"), 0, state_of(plan_of("arrival", 2, 2, "drop"), 8), 0)
    handout.add(0, 0, 0, range(6), padding=False)
    assert list(handout.run(handout.limit(6, final=False))) == [0, 1]
    handout.advance(2)
    assert handout.run(handout.limit(7, final=False)) == ()
    assert list(handout.run(handout.limit(8, final=False))) == [4, 5]


@pytest.mark.parametrize(("skip", "expected"), [(0, [0, 1, 2]), (2, [2])])
def test_outputs_that_an_earlier_consumer_had_are_left_out(skip: int, expected: list[int]) -> None:
    plan = plan_of("arrival")
    handout = Handout(plan, 0, state_of(plan, 4), 0)
    handout.add(0, skip, skip, range(3), padding=False)
    assert list(handout.run(None)) == expected
    handout.advance(len(expected))
    assert handout.over(3)


def test_a_block_that_comes_after_a_later_one_is_not_held_up_by_it() -> None:
    plan = plan_of("arrival", 2, 2, "drop")
    handout = Handout(plan, 0, state_of(plan, 12), 0)
    handout.add(2, 8, 0, range(8, 11), padding=False)
    handout.add(1, 4, 0, range(4, 8), padding=False)
    limit = handout.limit(11, final=True)
    assert list(handout.run(limit)) == [4, 5]
    handout.advance(2)
    assert handout.run(limit) == ()


def test_what_an_earlier_loader_had_begun_stays_begun_until_its_rest_has_come() -> None:
    plan = plan_of("arrival")
    begun = replace(state_of(plan, 12), open=((1, 3),))
    handout = Handout(plan, 0, begun, 0)
    handout.add(0, 0, 0, range(4), padding=False)
    handout.advance(len(handout.run(None, 2)))
    assert handout.state().open == ((0, 2), (1, 3))
    handout.advance(len(handout.run(None)))
    assert (handout.state().done, handout.state().open) == (((0, 1),), ((1, 3),))
    handout.add(1, 7, 3, range(5), padding=False)
    assert list(handout.run(None)) == [3, 4]
    handout.advance(1)
    assert handout.state().open == ((1, 4),)
    handout.advance(len(handout.run(None)))
    assert (handout.state().done, handout.state().open) == (((0, 2),), ())
