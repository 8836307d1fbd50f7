"""Owns where a generation begins: from ranks' checkpoints, from what the broker knows, or at the beginning. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from dfserve.broker.ledger import Ledger, Start
from dfserve.broker.seats import Seat
from dfserve.epochs.plan import Plan
from dfserve.epochs.state import State
from dfserve.errors import WireError
from dfserve.wire.epoch_messages import Opened, Source

SoFar = tuple[Plan | None, int, Start, State | None]
MAY_CHANGE = ("world", "stride", "even", "batch")  # in strict order, at the beginning of a row


POSITION = ("epoch", "row", "taken", "done", "open")  # of a state; ranks may know different splits before it


def common(states: Iterable[State], world: int) -> State | None:
    """Return the position that all of ``world`` ranks left at; None where some did not, or at another one."""
    left = sorted(states, key=lambda each: each.split)
    same = len({tuple(getattr(state, name) for name in POSITION) for state in left}) == 1
    return left[0] if same and len(left) >= world else None


def start_of(seats: Sequence[Seat], source: Source, so_far: SoFar) -> tuple[Plan, int, Start]:
    """Return the plan with its split size, the epoch, and where in it all ranks begin.

    Args:
        seats: all ranks, which agree on the plan.
        source: what workers said.
        so_far: plan, epoch, position and the state that all ranks left, of the generation before.

    Raises:
        WireError: reason ``config``, with what to do, for the user.
    """
    seat = min(seats, key=lambda each: each.rank)
    plan = next((each.plan for each in seats if each.plan.split_size), seat.plan)
    if any(each.state is not None for each in seats):
        return _from_states(plan, seats, source)
    ways = {each.resume for each in seats}
    if len(ways) > 1:
        _refuse(f"ranks disagree on resume: {', '.join(sorted(ways))}")
    before, epoch, start, left = so_far
    claimed = start.low or start.done or start.skip or any(start.begin) or any(claims for *_, claims in start.placed)
    progress = before is not None and (epoch > 0 or claimed or left is not None)
    if not progress or seat.resume == "fresh":
        return plan.sized(source.items, source.item_bytes, source.batch), 0, Start()
    if seat.resume == "checkpoint":
        which = f"this broker has handed out part of epoch {epoch} to group members that are gone"
        if left is not None and left == left.beginning(left.epoch):
            which = f"an earlier run of this group ended here before epoch {epoch}"
        _refuse(
            f"{which}, and no state was loaded: call load_state_dict() with the checkpoint's, or choose resume='broker'"
            " (go on after what was handed out) or resume='fresh' (begin again at epoch 0)"
        )
    assert before is not None
    return _from_broker(plan, source, (before, epoch, start, left))


def _from_states(plan: Plan, seats: Sequence[Seat], source: Source) -> tuple[Plan, int, Start]:
    without = [each.who for each in seats if each.state is None]
    if without:
        _refuse(f"{', '.join(without[:8])} loaded no state, and others did: load the same checkpoint in all ranks")
    states = [each.state for each in seats if each.state is not None]
    first = states[0]
    for seat, state in zip(seats, states, strict=True):
        for name in POSITION:
            mine, theirs = getattr(first, name), getattr(state, name)
            if mine != theirs:
                _refuse(f"the state of {seat.who} has {name} {theirs}, and that of {seats[0].who} {mine}; load one")
    state = min(states, key=lambda each: each.split)
    return _from_state(plan, state, source)


def _from_state(plan: Plan, state: State, source: Source) -> tuple[Plan, int, Start]:
    plan = replace(plan, split_size=plan.split_size or state.split_size, stride=plan.stride or state.stride)
    here = {**plan.to_dict(), "source": source.fingerprint, "n": source.items}
    strict = state.order == "strict"
    fixed = {name: value for name, value in here.items() if not (strict and name in MAY_CHANGE)}
    if what := state.disagreement(fixed):
        _refuse(f"this checkpoint is of another run: {what}")
    if not strict:
        if plan.world > 1:
            _refuse("a checkpoint in the order of arrival is one rank's: use order='strict' with several")
        done = [(first, last) for first, last in state.done]
        low = done[0][1] if done and done[0][0] == 0 else 0
        return plan, state.epoch, Start(low, done=tuple(done), skip=state.open)
    rows = plan.rows
    base = 0
    begin = tuple(state.row * rows.size + rank * rows.stride + state.taken for rank in range(plan.world))
    if (plan.world, plan.stride) != (state.world, state.stride):
        if state.taken:
            _refuse(
                f"world or stride changes from {state.world} x {state.stride} to {plan.world} x {plan.stride}, which"
                f" works between rows; this checkpoint is {state.taken} datapoints into one: save one at a multiple"
                f" of {state.stride} datapoints of a rank"
            )
        base, begin = state.row * state.row_size, ()
    return plan, state.epoch, Start(state.split, state.start - base, begin=begin or (0,) * plan.world)


def _from_broker(plan: Plan, source: Source, so_far: SoFar) -> tuple[Plan, int, Start]:
    before, epoch, start, left = so_far
    assert before is not None
    if left is not None:
        return _from_state(plan, left, source)
    if what := before.differs(plan):
        _refuse(f"resume='broker' goes on with the plan that there was: {what}")
    if before.world > 1:
        _refuse(
            "resume='broker' with several ranks needs that all of them left with close(): what those that died had"
            " claimed is in doubt, and ranks would not stay equal. Load a checkpoint, or choose resume='fresh'"
        )
    if before.order == "strict":
        return before, epoch, replace(start, placed=(), begin=(max(start.total, *start.begin),))
    return before, epoch, replace(start, total=0, placed=(), begin=())  # as from a checkpoint: numbers begin anew


def starting_state(seat: Seat, epochs: Mapping[int, Ledger]) -> dict[str, Any]:
    """Return what a rank must know to count from: the epoch, and its position in it."""
    epoch = seat.epoch
    ledger = epochs.get(epoch)
    if ledger is None:
        return {"epoch": epoch, "split": 0, "start": 0, "begin": 0, "done": [], "skip": []}
    start = ledger.record()
    return {
        "epoch": epoch,
        "split": start.low,
        "start": start.total,
        "begin": ledger.begin[seat.rank],
        "done": [[0, start.low], *map(list, start.done)] if start.low else list(map(list, start.done)),
        "skip": [list(each) for each in start.skip],
    }


def kept_of(holding: Sequence[int], starts: Mapping[int, Start]) -> list[int]:
    """Return which of the blocks that a rank holds unconfirmed it had claimed durably when a broker died.

    What the broker after it has settled says nothing: numbers may be others now, and a split another rank's.

    Args:
        holding: (epoch, split, claimant), one after the other; as is what is returned.
        starts: epochs, as the record had them.
    """
    kept = []
    for epoch, split, claimant in zip(holding[::3], holding[1::3], holding[2::3], strict=False):
        if epoch in starts and starts[epoch].claimed(split, claimant):
            kept += [epoch, split, claimant]
    return kept


def opened(
    instance: bytes, seat: Seat, plan: Plan, source: Source, state: Mapping[str, Any], kept: Sequence[int]
) -> Opened:
    """Return what a rank is told when its generation opens, or it comes back to it."""
    return Opened(
        broker=instance,
        generation=seat.generation,
        plan=json.dumps(plan.to_dict()),
        items=source.items,
        source=source.fingerprint,
        batch=source.batch,
        remainder=source.remainder,
        use_list=source.use_list,
        state=json.dumps(state),
        sent=seat.claimed,  # what comes after it is sent again
        confirms=seat.confirms,
        kept=list(kept),
    )


def restored(fields: Mapping[str, Any]) -> Start:
    """Return the position that a record holds as plain JSON types."""
    pairs = {name: tuple(tuple(each) for each in fields[name]) for name in ("done", "placed", "skip")}
    return Start(
        fields["low"], fields["total"], begin=tuple(fields["begin"]), tally=tuple(fields["tally"]), **pairs
    )  # fmt: skip


def _refuse(text: str) -> NoReturn:
    raise WireError("config", text)
