"""Tests of how far ahead of its need a rank claims. What is claimed and not handed out is in doubt if it dies."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dfserve.consumer.epoch_inbox import AHEAD_BLOCKS, AHEAD_BYTES, REFUSED, EpochInbox
from dfserve.consumer.rank import rank_identity
from dfserve.epochs.plan import Plan
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import ConsumerBeat

GENERATION = b"g" * 16
OUTPUTS = 10  # of each block, of all ranks


def inbox_of(world: int, sizes: list[int]) -> EpochInbox:
    """Return an inbox that has received blocks of so many bytes each, and claimed none."""
    plan = Plan("default", 0, True, "strict", 4, world, 1, "drop" if world > 1 else "")
    inbox = EpochInbox(rank_identity(plan, "default", 50, 0, "checkpoint", "raise", hosts=False))
    where = json.dumps({"epoch": 0, "begin": 0, "split": 0, "start": 0, "done": [], "skip": []})
    text = json.dumps(plan.to_dict())
    inbox.receive(e.Opened(b"b" * 16, GENERATION, text, 1000, "00", 0, False, False, where, 0, True, []), [])
    for number, nbytes in enumerate(sizes):
        start = number * OUTPUTS
        portion = e.Portion(number + 1, GENERATION, 0, number, start, OUTPUTS, 0, False, "w", 0, start, False)
        assert inbox.receive(portion, [bytes(nbytes)]) == []
    return inbox


def claimed(inbox: EpochInbox) -> int:
    (claim,) = inbox.claims(0.0, hungry=False)
    assert isinstance(claim, e.Claim)
    return claim.claimed


@given(st.integers(1, 3), st.integers(0, 120), st.integers(2, 20), st.sampled_from([100, AHEAD_BYTES]))
def test_what_is_taken_at_a_time_is_claimed_at_a_time(world: int, size: int, count: int, nbytes: int) -> None:
    inbox = inbox_of(world, [nbytes] * count)
    inbox.need(size)
    bytes_want = -(-AHEAD_BYTES // nbytes)
    want = max(AHEAD_BLOCKS, bytes_want, -(-size * world // OUTPUTS))
    assert claimed(inbox) == min(count, want)
    assert inbox.claims(0.0, hungry=False) == []


def test_a_claim_goes_as_far_ahead_of_what_was_opened() -> None:
    inbox = inbox_of(1, [AHEAD_BYTES] * 20)
    inbox.need(50)
    assert claimed(inbox) == 5
    inbox.receive(e.Confirm(GENERATION, 5, 0, 200, False, ""), [])
    for opened in range(1, 4):
        arrival = inbox.take()
        assert arrival is not None
        assert claimed(inbox) == 5 + opened
        assert inbox.take() is arrival, "until it is put out"
        inbox.put_out()
        assert inbox.claims(0.0, hungry=False) == []


def test_more_datapoints_may_be_wanted_in_flight_and_never_fewer() -> None:
    inbox = inbox_of(1, [])
    inbox.widen(200)
    assert inbox.hello().hwm == 200
    inbox.widen(100)
    assert inbox.hello().hwm == 200


def test_it_is_hopeless_when_no_producer_can_serve_for_some_heartbeats_in_a_row() -> None:
    plan = Plan("default", 0, True, "strict", 4, 1, 1, "")
    inbox = EpochInbox(rank_identity(plan, "default", 50, 0, "checkpoint", "raise", hosts=False))
    refused, one_started, none_came = (
        ConsumerBeat(0, producers, 0, ["n/6 (killed)"], 0, 0.0, [], refused)
        for producers, refused in ((0, ["n/7"]), (1, ["n/7"]), (0, []))
    )
    for other in (one_started, none_came):
        for _ in range(REFUSED - 1):
            inbox.receive(refused, [])
        inbox.receive(other, [])
        assert not inbox.hopeless
    for _ in range(REFUSED):
        assert not inbox.hopeless
        inbox.receive(refused, [])
    assert inbox.hopeless
