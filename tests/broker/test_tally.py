"""Owns the tests of the broker's counters: what is counted under which label, and when a label disappears."""

from __future__ import annotations

import secrets
from typing import Any

from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import FORGET, Core
from dfserve.broker.metrics_values import samples
from dfserve.broker.tally import Tally
from dfserve.wire import messages as m


class Clock:
    """The broker's two clocks, moved by hand: one for its decisions, one on the wall for the metrics."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, core: Core, seconds: float) -> None:
        """Let time pass; the broker ticks once at its end."""
        self.seconds += seconds
        core.tick(core.now + 2.0)


def make_core() -> tuple[Core, Clock]:
    clock = Clock()
    core = Core(BrokerConfig(), clock)
    core.tick(0.0)
    return core, clock


def producer(name: str) -> m.ProducerHello:
    return m.ProducerHello(secrets.token_bytes(16), name, "host", 1, "default", 0, 1, b"", 0, 0)


def consumer(group: str) -> m.ConsumerHello:
    return m.ConsumerHello(secrets.token_bytes(16), "c", "host", 1, "default", group, 50, "wait", 1, b"", 0, 0)


def labels(core: Core, metric: str) -> set[str]:
    return {label for (label,), _ in samples(core)[metric]}


def say(core: Core, connection: bytes, message: m.Message, *frames: Any) -> None:
    core.receive(connection, [*m.encode(message), *frames])


def test_labels_of_a_producer_that_left_disappear_after_a_while() -> None:
    core, clock = make_core()
    say(core, b"1", producer("data-1/0"))
    say(core, b"2", producer("data-2/0"))
    say(core, b"1", m.Bye(0, 0))
    clock.pass_by(core, FORGET)
    assert labels(core, "dfserve_datapoints_received_total") == {"data-1/0", "data-2/0"}
    clock.pass_by(core, 1.0)
    for metric in ("dfserve_datapoints_received_total", "dfserve_producer_last_seen_timestamp_seconds"):
        assert labels(core, metric) == {"data-2/0"}


def test_a_quiet_producer_that_is_still_connected_keeps_its_labels() -> None:
    core, clock = make_core()
    say(core, b"1", producer("data-1/0"))
    clock.pass_by(core, 10 * FORGET)
    assert labels(core, "dfserve_received_bytes_total") == {"data-1/0"}


def test_labels_of_a_group_that_was_deserted_disappear_after_a_while() -> None:
    core, clock = make_core()
    say(core, b"1", consumer("train"))
    say(core, b"2", consumer("val"))
    say(core, b"1", m.Bye(0, 0))
    clock.pass_by(core, FORGET + 1.0)
    for metric in ("dfserve_datapoints_delivered_total", "dfserve_consumer_wait_seconds_total", "dfserve_queue_items"):
        assert labels(core, metric) == {"val"}, metric


def test_a_producer_that_comes_back_counts_on_under_its_name() -> None:
    core, clock = make_core()
    say(core, b"1", producer("data-1/0"))
    say(core, b"1", m.WorkerBeat(0, 0, 0, 5.0))
    say(core, b"1", m.Bye(0, 0))
    say(core, b"2", producer("data-1/0"))
    say(core, b"2", m.WorkerBeat(0, 0, 0, 2.0))
    clock.pass_by(core, FORGET + 1.0)
    assert samples(core)["dfserve_producer_blocked_seconds_total"] == [(("data-1/0",), 7.0)]


def test_what_was_seen_at_the_very_limit_is_kept() -> None:
    tally = Tally()
    tally.producer("old").last_seen = 99.0
    tally.producer("new").last_seen = 100.0
    tally.group("old").last_seen = 99.0
    tally.group("live").last_seen = 0.0
    tally.forget(100.0, set(), {"live"})
    assert set(tally.producers) == {"new"}
    assert set(tally.groups) == {"live"}


def test_bad_messages_are_counted_by_reason_and_refusals_of_a_configuration_are_not() -> None:
    core, _ = make_core()
    core.receive(b"1", [b"x", b"y"])
    core.receive(b"2", [b"x"])
    say(core, b"3", consumer("a"))
    say(core, b"4", m.ConsumerHello(secrets.token_bytes(16), "c", "h", 1, "default", "a", 50, "skip", 1, b"", 0, 0))
    assert dict(core.tally.bad) == {"magic": 1, "frames": 1}
    answers = [type(message).__name__ for _, message, _ in core.drain()]
    assert answers == ["Refused", "Refused", "ConsumerWelcome", "ConsumerBeat", "Refused"]
