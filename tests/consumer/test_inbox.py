"""Owns the tests of a consumer's side of the delivery protocol: what it has, and what it has handed out."""

from __future__ import annotations

import pytest

from dfserve.consumer.inbox import RECEIPT_BYTES, Arrival, Inbox
from dfserve.wire import messages as m

BROKER, OTHER = b"b" * 16, b"o" * 16


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(m.ConsumerHello(b"s" * 16, "host/1", "host", 1, "p", "g", 50, "wait", 1, b"", 0, 0))


@pytest.fixture
def welcomed(inbox: Inbox) -> Inbox:
    inbox.receive(m.ConsumerWelcome(BROKER), [])
    return inbox


def deliver(inbox: Inbox, number: int) -> list[m.Message]:
    return inbox.receive(m.DeliverEnd(number, 1, []), [])


def hand_out(inbox: Inbox) -> Arrival:
    arrival = inbox.first()
    assert arrival is not None
    inbox.handed_out(arrival)
    return arrival


def hello_of(answers: list[m.Message]) -> m.ConsumerHello:
    (hello,) = answers
    assert isinstance(hello, m.ConsumerHello)
    return hello


def test_deliveries_are_taken_in_their_order(welcomed: Inbox) -> None:
    for number in (1, 2, 3):
        assert deliver(welcomed, number) == []
    assert [hand_out(welcomed).message.delivery for _ in range(3)] == [1, 2, 3]
    assert welcomed.first() is None


def test_a_delivery_stays_until_it_is_handed_out_and_is_only_once(welcomed: Inbox) -> None:
    for number in (1, 2):
        deliver(welcomed, number)
    first = welcomed.first()
    assert first is not None
    assert welcomed.first() is first
    for _ in range(2):  # again, where an interrupt came at its end
        welcomed.handed_out(first)
        assert (welcomed.done, len(welcomed)) == (1, 1)
    assert hand_out(welcomed).message.delivery == 2


def test_a_delivery_that_comes_twice_is_taken_once(welcomed: Inbox) -> None:
    for number in (1, 1, 2, 1, 2):
        assert deliver(welcomed, number) == []
    assert len(welcomed) == 2


def test_a_delivery_before_which_one_is_missing_is_dropped_and_makes_it_say_what_it_has(welcomed: Inbox) -> None:
    deliver(welcomed, 1)
    hello = hello_of(deliver(welcomed, 3))
    assert (hello.received, hello.done, hello.broker) == (1, 0, BROKER)
    assert len(welcomed) == 1


def test_what_comes_before_the_welcome_is_dropped_because_the_welcome_repeats_it(inbox: Inbox) -> None:
    assert deliver(inbox, 1) == []
    assert len(inbox) == 0


def test_a_beat_that_speaks_of_more_than_arrived_makes_it_say_what_it_has(welcomed: Inbox) -> None:
    deliver(welcomed, 1)
    assert welcomed.receive(m.ConsumerBeat(1, 1, 0, [], 0, 0.0), []) == []
    assert hello_of(welcomed.receive(m.ConsumerBeat(2, 1, 0, [], 0, 0.0), [])).received == 1


def test_the_answer_to_who_says_what_was_received_and_handed_out(welcomed: Inbox) -> None:
    for number in (1, 2, 3):
        deliver(welcomed, number)
    hand_out(welcomed)
    hello = hello_of(welcomed.receive(m.Who(), []))
    assert (hello.received, hello.done, hello.broker) == (3, 1, BROKER)


def test_receipts_are_given_only_to_a_broker_that_knows_us(inbox: Inbox) -> None:
    assert inbox.receipt(1.5, 0.0) == []
    assert isinstance(inbox.beat(1.5, 0.0), m.ConsumerHello)
    inbox.receive(m.ConsumerWelcome(BROKER), [])
    deliver(inbox, 1)
    hand_out(inbox)
    assert inbox.receipt(1.5, 0.0) == [m.Done(1, 1.5)]
    assert inbox.beat(1.5, 0.0) == m.Done(1, 1.5)


def test_the_same_broker_goes_on_counting_after_a_reconnect(welcomed: Inbox) -> None:
    deliver(welcomed, 1)
    welcomed.receive(m.Who(), [])
    welcomed.receive(m.ConsumerWelcome(BROKER), [])
    assert deliver(welcomed, 2) == []
    assert len(welcomed) == 2


def test_another_broker_counts_anew_and_what_the_old_one_sent_is_still_handed_out(welcomed: Inbox) -> None:
    for number in (1, 2):
        deliver(welcomed, number)
    welcomed.receive(m.Who(), [])
    welcomed.receive(m.ConsumerWelcome(OTHER), [])
    deliver(welcomed, 1)
    assert [hand_out(welcomed).broker for _ in range(3)] == [BROKER, BROKER, OTHER]


def test_what_the_old_broker_sent_is_not_acknowledged_to_the_new_one(welcomed: Inbox) -> None:
    deliver(welcomed, 1)
    welcomed.receive(m.ConsumerWelcome(OTHER), [])
    hand_out(welcomed)
    assert welcomed.receipt(0.0, 0.0) == [m.Done(0, 0.0)]


def test_one_that_was_given_up_drops_what_others_have_now_and_comes_back_as_somebody_new(welcomed: Inbox) -> None:
    before = welcomed.hello().session
    welcomed.receive(m.ConsumerWelcome(BROKER), [])
    deliver(welcomed, 1)
    hello = hello_of(welcomed.receive(m.Refused("expired", "too long"), []))
    assert hello.session != before
    assert (hello.received, hello.done, hello.broker) == (0, 0, b"")
    assert len(welcomed) == 0


def test_what_an_earlier_broker_had_sent_is_kept_by_one_that_was_given_up(welcomed: Inbox) -> None:
    deliver(welcomed, 1)
    welcomed.receive(m.ConsumerWelcome(OTHER), [])
    deliver(welcomed, 1)
    welcomed.receive(m.Refused("expired", "too long"), [])
    assert hand_out(welcomed).broker == BROKER
    assert welcomed.first() is None


def blocks(inbox: Inbox, nbytes: int, *numbers: int) -> None:
    for number in numbers:
        inbox.receive(m.Deliver(number, 1, 0, "w", False, []), [bytes(nbytes)])
        hand_out(inbox)


def test_blocks_that_come_fast_share_a_receipt(welcomed: Inbox) -> None:
    blocks(welcomed, 100, 1)
    assert welcomed.receipt_due(10.0)
    assert welcomed.receipt(0.0, 10.0) == [m.Done(1, 0.0)]
    assert not welcomed.owes
    blocks(welcomed, RECEIPT_BYTES // 2, 2)
    assert welcomed.owes
    assert not welcomed.receipt_due(10.0)
    blocks(welcomed, RECEIPT_BYTES // 2, 3)
    assert welcomed.receipt_due(10.0)
    assert welcomed.receipt(0.0, 10.0) == [m.Done(3, 0.0)]
    assert not welcomed.receipt_due(20.0)


def test_blocks_that_come_seldom_have_one_each(welcomed: Inbox) -> None:
    for number in (1, 2, 3):
        blocks(welcomed, 100, number)
        assert welcomed.receipt_due(float(number))
        assert welcomed.receipt(0.0, float(number)) == [m.Done(number, 0.0)]


def test_a_hello_is_a_receipt(welcomed: Inbox) -> None:
    blocks(welcomed, 100, 1)
    assert welcomed.hello().done == 1
    welcomed.receive(m.ConsumerWelcome(BROKER), [])
    assert not welcomed.owes
