"""Owns the tests of one broker's part in a stream: what it is told, and when it counts as not heard. No sockets."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dfserve import ConfigError
from dfserve.consumer.feed import SILENT, Feed
from dfserve.consumer.inbox import Arrival
from dfserve.consumer.session import Session
from dfserve.wire import messages as m

BROKER = b"b" * 16
NOW = 100.0  # monotonic seconds


class Line:
    """Stands for a session: what is put on ``coming`` is received, and ``sent`` has what was said."""

    def __init__(self) -> None:
        self.coming: list[m.Message] = []
        self.sent: list[m.Message] = []
        self.connection = SimpleNamespace(send=self.sent.append)

    def send(self, message: m.Message) -> None:
        self.sent.append(message)

    def receive(self, handle: Callable[[m.Message, list[Any]], object], _bad: Callable[[], object]) -> bool:
        some = bool(self.coming)
        if some:
            handle(self.coming.pop(0), [])
        return some


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def feed(line: Line) -> Feed:
    feed = Feed("tcp://a:1", m.ConsumerHello(b"s" * 16, "host/1", "host", 1, "p", "g", 50, "wait", 2, b"", 0, 0))
    feed.session = cast(Session, line)
    line.coming.append(m.ConsumerWelcome(BROKER))
    feed.receive()
    return feed


def block(number: int, count: int = 10, skip: int = 0) -> m.Deliver:
    return m.Deliver(number, count, skip, "data/0", again=False, pieces=[])


def hand_out(feed: Feed) -> Arrival:
    arrival = feed.first()
    assert arrival is not None
    feed.handed_out(arrival)
    return arrival


def test_one_without_a_connection_has_nothing_and_says_nothing() -> None:
    feed = Feed("tcp://a:1", m.ConsumerHello(b"s" * 16, "host/1", "host", 1, "p", "g", 50, "wait", 1, b"", 0, 0))
    feed.beat(0.0, NOW)
    feed.say_goodbye(None, 0)
    assert feed.first() is None
    assert not feed.welcomed


def test_it_knows_which_broker_it_is(feed: Feed) -> None:
    assert feed.welcomed
    assert feed.broker == BROKER


def test_it_takes_in_one_delivery_at_a_time_and_leaves_the_rest_in_the_queue(feed: Feed, line: Line) -> None:
    line.coming += [block(1), block(2)]
    feed.receive()
    feed.receive()
    assert (feed.waiting, len(line.coming)) == (1, 1)
    feed.receive(everything=True)
    assert (feed.waiting, len(line.coming)) == (2, 0)
    assert [hand_out(feed).message.delivery for _ in range(2)] == [1, 2]


def test_the_broker_is_told_what_was_handed_out_and_how_long_the_trainer_waited(feed: Feed, line: Line) -> None:
    line.coming += [block(1)]
    hand_out(feed)
    assert feed.owes
    feed.give_receipt(2.5, NOW)
    assert line.sent == [m.Done(1, 2.5)]
    assert not feed.owes


def test_a_receipt_that_is_not_due_is_given_where_all_that_is_owed_is(feed: Feed, line: Line) -> None:
    line.coming += [block(1), block(2)]
    hand_out(feed)
    feed.give_receipt(0.0, NOW)
    hand_out(feed)
    feed.give_receipt(0.0, NOW)
    assert line.sent == [m.Done(1, 0.0)]
    feed.give_receipt(0.0, NOW, owed=True)
    assert line.sent == [m.Done(1, 0.0), m.Done(2, 0.0)]
    feed.give_receipt(0.0, NOW, owed=True)
    assert len(line.sent) == 2


@pytest.mark.parametrize(
    ("skip", "left", "goodbye"),
    [(0, 10, m.Bye(0, 0)), (0, 4, m.Bye(0, 6)), (3, 4, m.Bye(0, 3)), (0, 0, m.Bye(1, 0))],
)
def test_a_goodbye_says_how_much_of_the_open_block_was_handed_out(
    feed: Feed, line: Line, skip: int, left: int, goodbye: m.Bye
) -> None:
    line.coming += [block(1, count=10, skip=skip)]
    feed.say_goodbye(feed.first(), left)
    assert line.sent == [goodbye]


def test_a_goodbye_where_nothing_is_open_gives_back_all_that_was_received(feed: Feed, line: Line) -> None:
    line.coming += [block(1)]
    feed.receive()
    feed.say_goodbye(None, 4)
    assert line.sent == [m.Bye(0, 0)]
    feed.close()
    assert feed.first() is None


def test_a_refusal_names_the_broker(feed: Feed, line: Line) -> None:
    line.coming += [m.Refused("config", "consumers disagree")]
    with pytest.raises(ConfigError, match="the broker at tcp://a:1 refused this consumer: consumers disagree"):
        feed.receive()


def test_one_that_leaves_heartbeats_unanswered_is_not_heard_whatever_it_said_before(feed: Feed, line: Line) -> None:
    line.coming += [m.ConsumerBeat(0, 3, 0, [], 0, 0.0)]
    feed.receive()
    for _ in range(SILENT - 1):
        feed.beat(0.0, NOW)
    assert "although 3 producers are connected to tcp://a:1" in feed.missing(9.0)
    feed.beat(0.0, NOW)
    assert "nothing was heard from a broker at tcp://a:1 for 9 s" in feed.missing(9.0)


def test_one_that_is_heard_again_is_no_longer_missing(feed: Feed, line: Line) -> None:
    for _ in range(SILENT):
        feed.beat(0.0, NOW)
    line.coming += [m.ConsumerBeat(0, 0, 1, [], 0, 0.0)]
    feed.receive()
    assert feed.unanswered == 0
    assert "no producer is connected to tcp://a:1 (1 ended, 2 clean ends are needed" in feed.missing(9.0)
