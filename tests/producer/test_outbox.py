"""Owns the tests of a worker's side of the delivery protocol: offers, credit, receipts and what a reconnect repeats."""

from __future__ import annotations

from typing import Any

import pytest

from dfserve.errors import BlockTooLarge
from dfserve.producer.outbox import Outbox
from dfserve.window import Window
from dfserve.wire import messages as m

BROKER, OTHER = b"b" * 16, b"o" * 16
MIB = 1 << 20


@pytest.fixture
def outbox() -> Outbox:
    identity = m.ProducerHello(b"s" * 16, "host/0", "host", 1, "p", 1, 1, b"", 0, 0)
    return Outbox(identity, Window(50))


def welcome(outbox: Outbox, acked: int = 0, broker: bytes = BROKER) -> None:
    outbox.receive(m.ProducerWelcome(broker, acked, max_frame=MIB, budget=2 * MIB))


def put(outbox: Outbox, blocks: int = 1, nbytes: int = 100) -> None:
    for _ in range(blocks):
        outbox.put_block([b"x" * nbytes], 1, nbytes)


def outgoing(outbox: Outbox) -> list[m.Message]:
    return [message for message, _ in outbox.take_outgoing()]


def test_nothing_is_sent_and_nothing_made_ahead_before_the_welcome(outbox: Outbox) -> None:
    before = outbox.has_room
    put(outbox)
    assert outgoing(outbox) == []
    welcome(outbox)
    assert outgoing(outbox) == [m.Offer(1, [100])]
    assert (before, outbox.has_room) == (False, True), "until then it is not known how large a block may be"


def test_blocks_leave_within_the_credit_and_new_ones_are_offered_once(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 3)
    assert outgoing(outbox) == [m.Offer(1, [100, 100, 100])]
    assert outgoing(outbox) == []
    outbox.receive(m.Credit(acked=0, granted=2, released=0))
    put(outbox)
    assert outgoing(outbox) == [m.Block(1, 1, []), m.Block(2, 1, [])]


def test_an_offer_leaves_before_the_blocks_so_that_it_is_answered_while_they_are_on_their_way(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox)
    outgoing(outbox)
    put(outbox)
    outbox.receive(m.Credit(acked=0, granted=1, released=0))
    assert outgoing(outbox) == [m.Offer(2, [100]), m.Block(1, 1, [])]


def test_what_is_made_while_an_offer_has_no_answer_shares_the_next_one(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox)
    assert outgoing(outbox) == [m.Offer(1, [100])]
    put(outbox, 2)
    assert outgoing(outbox) == []
    outbox.receive(m.Credit(acked=0, granted=1, released=0))
    assert outgoing(outbox) == [m.Offer(2, [100, 100]), m.Block(1, 1, [])]


def test_the_frames_of_a_block_leave_as_they_were_put(outbox: Outbox) -> None:
    welcome(outbox)
    frames: list[Any] = [b"body", b"array"]
    outbox.put_block(frames, 1, 9)
    outbox.take_outgoing()
    outbox.receive(m.Credit(0, 1, 0))
    assert outbox.take_outgoing()[0] == (m.Block(1, 1, []), frames)


def test_what_the_broker_has_is_let_go(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 3)
    outbox.receive(m.Credit(acked=2, granted=3, released=0))
    assert outbox.held == 1
    outbox.receive(m.Credit(acked=3, granted=3, released=1))
    assert outbox.empty
    assert not outbox.consumed
    outbox.receive(m.Credit(acked=3, granted=3, released=3))
    assert outbox.consumed


def test_a_reconnect_offers_and_sends_again_what_was_not_acknowledged(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 3)
    outgoing(outbox)
    outbox.receive(m.Credit(acked=0, granted=3, released=0))
    outgoing(outbox)
    (hello,) = outbox.receive(m.Who())
    assert isinstance(hello, m.ProducerHello)
    assert (hello.base, hello.broker, hello.uncertain) == (1, BROKER, 3), "they may have been handed on"
    welcome(outbox, acked=1)
    assert outgoing(outbox) == [m.Offer(2, [100, 100])]
    outbox.receive(m.Credit(acked=1, granted=3, released=0))
    assert outgoing(outbox) == [m.Block(2, 1, []), m.Block(3, 1, [])]


def test_credit_that_crosses_a_hello_is_void(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 2)
    outgoing(outbox)
    outbox.hello()
    outbox.receive(m.Credit(acked=1, granted=2, released=0))
    assert outbox.held == 2, "it is unknown whose receipt that is"
    welcome(outbox)
    assert outgoing(outbox) == [m.Offer(1, [100, 100])]


def test_another_broker_goes_on_after_the_last_receipt_and_learns_what_may_be_lost(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 5)
    outbox.receive(m.Credit(acked=4, granted=5, released=1))
    (hello,) = outbox.receive(m.Who())
    assert isinstance(hello, m.ProducerHello)
    assert (hello.base, hello.uncertain) == (5, 3)
    welcome(outbox, acked=4, broker=OTHER)
    assert outgoing(outbox) == [m.Offer(5, [100])]
    outbox.receive(m.Credit(acked=5, granted=5, released=1))
    assert outbox.consumed, "what the broker before had taken is no longer waited for"


def test_a_beat_says_how_far_things_are_or_who_we_are_while_unknown(outbox: Outbox) -> None:
    assert isinstance(outbox.beat(0.5), m.ProducerHello)
    welcome(outbox)
    put(outbox, 3)
    outgoing(outbox)
    outbox.receive(m.Credit(acked=1, granted=2, released=0))
    outgoing(outbox)
    assert outbox.beat(0.5) == m.WorkerBeat(offered=3, granted=2, sent=2, blocked=0.5)


def test_failures_and_the_end_are_numbered_and_offered_like_blocks(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox)
    outbox.put_fail(m.Fail(0, "k", "ValueError", "t", "tb", True))
    outbox.put_finish()
    assert outgoing(outbox) == [m.Offer(1, [100, 14, 0])]
    outbox.receive(m.Credit(0, 3, 0))
    assert [getattr(message, "seq", None) for message in outgoing(outbox)] == [1, 2, 3]


def test_the_window_closes_when_enough_is_held_and_opens_with_a_receipt(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, 64, nbytes=MIB)
    assert not outbox.has_room
    outbox.receive(m.Credit(acked=20, granted=64, released=0))
    assert outbox.has_room


def test_a_block_over_the_budget_is_refused_naming_the_flag_and_is_not_held(outbox: Outbox) -> None:
    welcome(outbox)
    with pytest.raises(BlockTooLarge, match=r"3\.0 MiB exceeds the broker's budget of 2\.0 MiB; raise --queue-bytes"):
        outbox.put_block([b"", b""], 1, 3 * MIB)
    assert outbox.empty


def test_an_array_over_the_largest_frame_is_refused_naming_the_flag_and_is_not_held(outbox: Outbox) -> None:
    welcome(outbox)
    with pytest.raises(BlockTooLarge, match=r"array of 1\.5 MiB exceeds max_frame of 1\.0 MiB; raise --max-frame"):
        outbox.put_block([b"", bytes(MIB + MIB // 2)], 1, MIB + MIB // 2)
    assert outbox.empty


def test_a_broker_that_is_replaced_by_a_smaller_one_says_so_and_everything_stays_held(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox, nbytes=MIB)
    with pytest.raises(BlockTooLarge, match="raise --queue-bytes"):
        outbox.receive(m.ProducerWelcome(OTHER, 0, max_frame=MIB, budget=MIB // 2))
    assert outbox.held == 1


def test_a_receipt_for_what_was_never_sent_does_no_harm(outbox: Outbox) -> None:
    welcome(outbox)
    put(outbox)
    outbox.receive(m.Credit(acked=99, granted=0, released=0))
    put(outbox)
    assert outgoing(outbox) == [m.Offer(2, [100])]
