"""What a broker in epochs mode does when one thing goes wrong, each told on its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import epochs_world as w
import pytest
from epochs_peers import Scenario

from dfserve.broker.epoch_start import kept_of
from dfserve.broker.ledger import Ledger, Made, Stage, Start
from dfserve.broker.poison import STRIKES
from dfserve.epochs.rows import Rows
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e


def _ledger(
    splits: int, world: int = 1, *, strict: bool = True, even: str = "", window: int = 100, **start: Any
) -> Any:
    return Ledger(splits, Rows(world, 1), strict=strict, even=even, window=window, start=Start(**start))


def _make(ledger: Ledger, outputs: int) -> int:
    split = ledger.lease(1000 + sum(map(id, ledger.open.values())) % 10**6)
    assert split is not None
    assert ledger.made(split.number, split.lease, Made(outputs, 1, filtered=not outputs, nbytes=10, block=b""))
    return split.number


def _finish(world: Any, most: int = 2000) -> None:
    """Go on, each step in turn, until all ranks have ended."""
    for turn in range(most):
        if world.done:
            world.check_end()
            return
        steps = world.steps()
        assert steps, "nothing can happen, and ranks wait"
        world.step(steps[turn % len(steps)])
    pytest.fail("no end")


def _until(world: Any, *steps: tuple[str, ...]) -> None:
    for step in steps:
        if step in world.steps() or step in world.faults():
            world.step(step)


def _opened(world: Any) -> None:
    """Go on until all ranks know the generation."""
    for turn in range(500):
        if all(rank.generation for rank in world.ranks):
            return
        steps = [step for step in world.steps() if step[0] != "make"]
        world.step(steps[turn % len(steps)])


def _handed(world: Any, count: int) -> None:
    """Go on until the only rank has handed out so much."""
    for turn in range(500):
        if len(world.ranks[0].handed) == count:
            return
        steps = world.steps()
        world.step(steps[turn % len(steps)])
    pytest.fail("that does not happen")


def _crashing(**more: Any) -> Any:
    return w.World(Scenario(faults=(("crash", 9), ("cut", 9), ("reload", 9), ("leave", 9)), most=99, **more))


def test_an_epoch_ends_with_every_datapoint_in_the_strict_order() -> None:
    world = w.World(Scenario(counts=(1, 2, 0, 1, 1), world=2, even="pad"))
    _finish(world)
    assert [each[3] for each in world.ranks[0].handed] == ["7.0.0.0", "7.0.1.1", "7.0.4.0"]


def test_a_rank_is_not_told_of_its_generation_before_that_is_durable() -> None:
    world = w.World(Scenario())
    for turn in range(200):
        steps = [step for step in world.steps() if step != ("disk",)]
        if not steps:
            break
        world.step(steps[turn % len(steps)])
    assert world.job.generation
    assert not any(rank.generation for rank in world.ranks)
    _finish(world)


def test_a_rank_that_was_not_told_of_its_generation_before_the_broker_died_is_put_back_into_it() -> None:
    world = _crashing(workers=1)
    while ("disk",) not in world.steps():
        world.step(world.steps()[0])
    world.step(("disk",))
    world.step(("down", "r0"))
    generation = world.job.generation
    assert world.ranks[0].generation == generation
    assert not world.ranks[1].generation
    world.step(("crash",))
    _finish(world)
    assert world.ranks[1].generation == generation


def test_a_new_broker_says_again_what_a_rank_may_keep_if_its_first_answer_is_lost() -> None:
    world = _crashing(counts=(1, 1, 1, 1), world=1, workers=1)
    while not world.ranks[0].claimed:
        world.step(world.steps()[0])
    world.step(("up", "r0"))
    world.step(("disk",))  # the claim is durable, and the rank does not know
    world.step(("crash",))
    _until(world, ("connect", "r0"), ("up", "r0"), ("cut", "r0"))
    _finish(world)


def test_a_broker_that_was_restored_waits_for_its_ranks() -> None:
    world = _crashing()
    _opened(world)
    world.step(("crash",))
    assert not world.job.seats
    world.job.pump(world.time)
    _finish(world)


def test_ranks_that_all_said_goodbye_go_on_exactly_there() -> None:
    world = _crashing(counts=(1,) * 6, world=2, split_size=3, lazy=True)
    for turn in range(500):
        if [rank.passed for rank in world.ranks] == [1, 1]:
            break
        steps = [s for s in world.steps() if s[0] != "user" or world.peers[s[1]].passed == 0]
        world.step(steps[turn % len(steps)])
    world.step(("leave",))
    _finish(world)
    assert [len(rank.handed) for rank in world.ranks] == [3, 3]


def test_a_goodbye_is_answered_when_it_is_durable_and_outlives_the_broker_from_then_on() -> None:
    world = _crashing(counts=(1,) * 6, world=1, split_size=2, lazy=True, workers=1)
    _handed(world, 3)
    while world.disk.pending:
        world.step(("disk",))
    rank = world.ranks[0]
    world.step(("leave",))
    _until(world, ("up", "r0"), ("down", "r0"))
    assert not rank.parted
    _until(world, ("disk",), ("down", "r0"), ("disk",), ("down", "r0"))
    assert rank.parted
    world.step(("crash",))
    _finish(world)
    assert [each[3] for each in world.ranks[0].handed] == [f"7.0.{n}.0" for n in range(6)]


def test_a_goodbye_that_a_broker_read_and_lost_is_said_to_the_next_one() -> None:
    world = _crashing(counts=(1,) * 6, world=1, split_size=2, lazy=True, workers=1)
    _handed(world, 3)
    world.step(("leave",))
    world.step(("up", "r0"))
    world.step(("crash",))
    _finish(world)
    assert [each[3] for each in world.ranks[0].handed] == [f"7.0.{n}.0" for n in range(6)]


def test_a_rank_that_hosts_its_broker_waits_for_no_confirmation_and_says_what_it_has_all_the_same() -> None:
    world = w.World(Scenario(counts=(1,) * 6, world=1, split_size=1, ledger=False, hosts=True))
    confirmed = []
    send, world.job._send = (
        world.job._send,
        lambda session, message, frames: (
            confirmed.append(message.claimed) if isinstance(message, e.Confirm) else None,
            send(session, message, frames),
        ),
    )
    _finish(world)
    assert len(world.ranks[0].handed) == 6
    assert set(confirmed) == {0}
    _until(world, ("up", "r0"))
    assert world.job.seats[0].claimed == 6


def test_what_was_sent_to_a_rank_that_waits_for_no_confirmation_is_not_sent_to_the_one_that_goes_on() -> None:
    scenario = Scenario(counts=(1,) * 6, world=1, split_size=1, ledger=False, hosts=True, lazy=True, workers=1)
    world = w.World(replace(scenario, faults=(("resume", 1),), most=1))
    while not world.ranks[0].waiting:
        world.step(world.steps()[0])
    assert not world.ranks[0].claimed or world.ranks[0].claimed < world.ranks[0].received + 1
    world.step(("resume",))
    _finish(world)


def test_a_new_broker_owes_nothing_to_a_rank_that_left_after_the_epoch() -> None:
    world = _crashing(counts=(1,) * 4, world=2, split_size=1, workers=1)
    _opened(world)
    rank = world.ranks[0]
    left = replace(rank.state_at(0, 0), epoch=1)
    world.job.farewell(world.seats["r0"], e.Farewell(rank.generation, json.dumps(left.to_dict())))
    record = world.job.record()
    world.step(("crash",))
    world.job.restore(record)
    ledger = world.job.epochs[0]
    while ledger.may_lease:
        _make(ledger, 1)
    assert not ledger.queues[0]
    assert len(ledger.queues[1]) == 2


def test_a_rank_keeps_what_it_had_claimed_when_the_broker_died_whatever_others_have_settled_since() -> None:
    start = Start(low=1, done=((3, 4),), placed=((2, 1, 3, (0,)),))
    holding = [0, 0, 1, 0, 1, 1, 0, 2, 0, 0, 2, 1, 0, 3, 1, 1, 0, 0]
    assert kept_of(holding, {0: start}) == [0, 0, 1, 0, 2, 0, 0, 3, 1]


def test_a_worker_that_missed_that_it_is_to_drop_a_lease_is_told_again() -> None:
    world = w.World(Scenario(counts=(1, 1), split_size=1, world=1, workers=1, faults=(("cutw", 1),)))
    while not world.workers[0].todo:
        world.step(world.steps()[0])
    worker = world.workers[0]
    _, leased = next(iter(world.job.production.lessees.out()))
    leased.revoked = True
    world.step(("cutw", "w0"))
    world.step(("connect", "w0"))
    world.step(("up", "w0"))
    assert e.Revoke([leased.number]) in [message for message, _ in worker.down]
    _finish(world)


def test_a_row_that_is_larger_than_the_budget_does_not_stop_the_epoch() -> None:
    _finish(w.World(Scenario(counts=(1,) * 7, split_size=1, stride=4, even="pad", blocks=1)))


def test_a_block_that_nearly_fills_the_budget_is_leased_for_again() -> None:
    _finish(w.World(Scenario(counts=(1,) * 4, split_size=1, world=1, blocks=1, slot=60, sizes=(9000,) * 4)))


def test_a_rank_that_has_gone_on_is_owed_nothing_of_the_epoch_before() -> None:
    _finish(w.World(Scenario(counts=(1, 1, 1), split_size=1, epochs=4, blocks=2)))


def test_a_block_with_impossible_counts_leaves_its_split_to_others_and_no_byte_behind() -> None:
    world = w.World(Scenario(workers=1))
    while not world.workers[0].todo:
        world.step(world.steps()[0])
    worker = world.workers[0]
    lease = worker.next()
    bad = e.Made(lease.lease, lease.generation, lease.epoch, lease.split, 5, [1], "")
    with pytest.raises(WireError, match="counted"):
        world.job.production.made(worker.session, bad, [b"x"], 0.0)
    world.check()
    assert world.job.epochs[0].open[lease.split].stage is Stage.PENDING


def test_a_worker_may_fill_its_lease_to_the_last_byte() -> None:
    world = w.World(Scenario(workers=1))
    while not world.workers[0].todo:
        world.step(world.steps()[0])
    worker = world.workers[0]
    lease = worker.next()
    full = e.Made(lease.lease, lease.generation, lease.epoch, lease.split, 3, [1, 2], "")
    assert world.job.production.made(worker.session, full, [bytes(lease.most)], 0.0)


def test_an_item_that_was_given_up_after_its_lease_is_counted_as_what_it_was() -> None:
    world = w.World(Scenario(counts=(1, 1), workers=1, world=1))
    while not world.workers[0].todo:
        world.step(world.steps()[0])
    for _ in range(STRIKES):
        world.job.production.poison.strike(0, 0)
    _finish(world)
    assert json.loads(world.ranks[0].report or "{}").get("delivered", 2) == 2


def test_a_fresh_rank_that_comes_back_with_another_plan_is_refused() -> None:
    world = w.World(Scenario(workers=1))
    rank = world.ranks[0]
    first, other = rank.hello(), replace(world.ranks[1].hello(), plan=json.dumps(replace(rank.plan, seed=8).to_dict()))
    seat = world.job.rank_hello(first, 0.0)
    world.job.rank_unreachable(seat)
    world.job.rank_hello(other, 0.0)
    with pytest.raises(WireError, match="seed"):
        world.job.rank_hello(first, 0.0)


# ------------------------------------------------------------------ the ledger by itself


def test_a_split_that_was_settled_before_an_earlier_one_keeps_its_numbers_over_a_crash() -> None:
    ledger = _ledger(4, 2, even="drop")
    for _ in range(3):
        _make(ledger, 1)
    ledger.claim(1, 1)
    again = _ledger(4, 2, even="drop", **vars(ledger.record()))
    assert ledger.record().claimed(1, 1)
    for _ in range(3):
        _make(again, 1)
    assert again.total == 4
    assert {split.number: split.start for split in again.open.values()} == {0: 0, 1: 1, 2: 2, 3: 3}


def test_splits_that_give_nothing_do_not_fill_the_window_while_a_row_is_incomplete() -> None:
    ledger = _ledger(50, 2, even="drop", window=4)
    _make(ledger, 1)
    ledger.claim(0, 0)
    for _ in range(48):
        _make(ledger, 0)
    assert _make(ledger, 1) == 49


def test_claims_of_what_lies_partly_before_a_changed_row_survive_a_crash() -> None:
    ledger = _ledger(2, 2, even="drop", total=-1)
    _make(ledger, 3)
    ledger.claim(0, 0)
    assert ledger.record().placed == ((0, -1, 3, (0,)),)


def test_an_item_that_raises_when_nobody_needs_it_any_more_does_not_hold_the_next_epoch_up() -> None:
    ledger = _ledger(2, 2, even="drop")
    for rank in (0, 1):
        ledger.passed(rank)
    split = ledger.lease(1)
    assert split is not None
    ledger.made(0, 1, Made(0, 0, failed=True))
    assert ledger.abandoned
    assert not ledger.complete


def test_padding_that_was_handed_out_is_not_owed_again() -> None:
    ledger = _ledger(1, 2, even="pad", begin=(1, 2))
    _make(ledger, 1)
    assert ledger.complete


def test_a_rank_that_dies_before_it_claims_anything_goes_on_where_the_one_before_it_left() -> None:
    scenario = Scenario(counts=(2, 1), split_size=1, world=1, order="arrival", lazy=True, workers=1)
    world = w.World(replace(scenario, faults=(("leave", 1), ("resume", 1)), most=2))
    for kind, until in (
        ("leave", lambda rank: rank.handed),
        ("resume", lambda rank: rank.generation and not rank.goodbye),
    ):
        while not until(world.ranks[0]):
            world.step(world.steps()[0])
        world.step((kind,))
    _finish(world)
    assert [each[3] for each in world.ranks[0].handed] == ["7.0.0.0", "7.0.0.1", "7.0.1.0"]
