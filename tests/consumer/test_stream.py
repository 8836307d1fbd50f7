"""Owns the tests of a stream from several brokers, which are real ones in threads: turns, ends, and who is missing."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dfserve import ConfigError, PipelineError, RemoteDataZMQ, Starved, WorkerLost
from dfserve.consumer import stream as stream_module
from dfserve.producer.reports import fail_message
from dfserve.producer.send import introduce
from dfserve.producer.sender import Sender
from dfserve.producer.uplink import Uplink
from dfserve.testing import LocalBroker

SHORT = 0.3  # seconds: a timeout that a test waits for
ANSWERED = 6.0  # seconds: the same, where a broker must have answered by then
ABSENT = "ipc://@a-broker-that-is-not-there"


@pytest.fixture
def brokers() -> Iterator[list[LocalBroker]]:
    with LocalBroker() as one, LocalBroker() as two:
        yield [one, two]


def consumer(*where: LocalBroker | str, **options: Any) -> RemoteDataZMQ:
    addresses = [each if isinstance(each, str) else each.address for each in where]
    return RemoteDataZMQ(addresses, bind=False, **{"timeout": 30, **options})


def numbers(start: int, count: int) -> list[list[int]]:
    return [[number] for number in range(start, start + count)]


def send_to(*pairs: tuple[LocalBroker, list[list[int]]]) -> None:
    for broker, datapoints in pairs:
        broker.send(datapoints)


def starved_after_the_end_of(broker: LocalBroker, remote: RemoteDataZMQ) -> str:
    """Ask for more until the end of a broker's stream has been heard; returns the error that says so."""
    return starved_until(f"The stream of {broker.address} has ended", remote)


def starved_until(text: str, remote: RemoteDataZMQ) -> str:
    """Ask for more until the error says something; returns the error. How soon it does depends on the machine."""
    said = ""
    deadline = time.monotonic() + 60
    while text not in said:
        assert time.monotonic() < deadline, said
        with pytest.raises(Starved) as caught:
            next(remote)
        said = str(caught.value)
    return said


# ---------------------------------------------------------------------- from all of them


def test_the_datapoints_of_all_brokers_come_exactly_once_and_then_the_end(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    send_to((one, numbers(0, 100)), (two, numbers(100, 50)))
    with consumer(one, two) as remote:
        assert Counter(number for (number,) in remote) == Counter(range(150))
        assert remote.in_doubt == 0


def test_the_second_address_of_tensorpack_is_another_broker(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    send_to((one, numbers(0, 3)), (two, numbers(3, 3)))
    with RemoteDataZMQ(one.address, two.address, bind=False, timeout=30) as remote:
        assert sorted(remote) == numbers(0, 6)
        assert remote.endpoints == [one.address, two.address]


def test_brokers_that_have_something_take_turns(brokers: list[LocalBroker], until: Callable[..., Any]) -> None:
    for broker in brokers:
        for number in range(5):  # a block each
            broker.send([[number]])
    with consumer(*brokers, min_producers=5) as remote:
        remote.reset_state()
        stream = remote._stream

        def waiting() -> int:
            stream._receive_everything()
            return sum(feed.waiting for feed in stream._feeds)

        until(lambda: waiting() == 10, "all to be here")
        assert [next(remote)[0] for _ in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_each_broker_is_told_how_far_the_trainer_is(brokers: list[LocalBroker], until: Callable[..., Any]) -> None:
    send_to((brokers[0], numbers(0, 7)), (brokers[1], numbers(7, 4)))
    with consumer(*brokers) as remote:
        assert len(list(remote)) == 11
    for broker, count in zip(brokers, (7, 4), strict=True):
        until(
            lambda broker=broker, count=count: broker.metrics()["dfserve_datapoints_delivered_total"] == count,
            "the last receipt",
        )


def send_two_blocks_to_each(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    send_to((one, numbers(0, 10)), (one, numbers(10, 10)), (two, numbers(20, 10)), (two, numbers(30, 10)))


def test_closing_gives_back_to_each_broker_what_was_not_handed_out(brokers: list[LocalBroker]) -> None:
    send_two_blocks_to_each(brokers)
    with consumer(*brokers, min_producers=2) as remote:
        got = [next(remote)[0] for _ in range(13)]  # all of one block, and some of another
    with consumer(*brokers, min_producers=2) as remote:
        got += [number for (number,) in remote]
        assert remote.in_doubt == 0
    assert Counter(got) == Counter(range(40))


def test_it_can_be_used_again_after_it_was_closed(brokers: list[LocalBroker]) -> None:
    send_two_blocks_to_each(brokers)
    remote = consumer(*brokers, min_producers=2)
    got = [next(remote)[0] for _ in range(13)]
    remote.close()
    with remote:
        got += [number for (number,) in remote]
    assert Counter(got) == Counter(range(40))


def test_one_that_was_closed_remembers_which_brokers_streams_have_ended(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    remote = consumer(one, two, timeout=ANSWERED)
    one.send(numbers(0, 3))
    assert [next(remote) for _ in range(3)] == numbers(0, 3)
    starved_after_the_end_of(one, remote)
    remote.close()
    two.send(numbers(3, 3))
    with remote:
        assert list(remote) == numbers(3, 3)


def test_children_that_were_forked_before_it_connected_are_consumers_of_their_own(
    brokers: list[LocalBroker], start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    children = start(
        "-c",
        """
import os, sys
from dfserve import RemoteDataZMQ
remote = RemoteDataZMQ(sys.argv[1:], bind=False, timeout=60)
for _ in range(2):
    if os.fork() == 0:
        taken = [number for number, in remote]
        remote.close()
        os.write(1, f"{taken}\\n".encode())
        os._exit(0)
sys.exit(os.wait()[1] | os.wait()[1])
""",
        *(broker.address for broker in brokers),
    )
    until(lambda: [broker.metrics()["dfserve_consumers"] for broker in brokers] == [2, 2], "both children at each")
    send_to((brokers[0], numbers(0, 10)), (brokers[1], numbers(10, 10)))
    assert children.wait() == 0, children.output
    assert sorted(number for taken in children.lines for number in taken) == list(range(20))


def test_a_broker_that_has_nothing_holds_up_no_other(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    with consumer(one, two) as remote:
        one.send(numbers(0, 1000))
        assert [next(remote) for _ in range(1000)] == numbers(0, 1000)
        two.send(numbers(1000, 3))
        assert list(remote) == numbers(1000, 3)


# ---------------------------------------------------------------------- the end


def test_the_end_comes_when_every_broker_has_said_its_own(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    with consumer(one, two, timeout=ANSWERED) as remote:
        one.send(numbers(0, 3))
        assert [next(remote) for _ in range(3)] == numbers(0, 3)
        text = starved_after_the_end_of(one, remote)
        assert f"no producer is connected to {two.address} (none has come yet to this broker)" in text
        two.send(numbers(3, 3))
        assert list(remote) == numbers(3, 3)


def test_what_comes_after_a_brokers_end_belongs_to_the_next_loop(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    with consumer(one, two, timeout=ANSWERED) as remote:
        one.send(numbers(0, 3))
        assert [next(remote) for _ in range(3)] == numbers(0, 3)
        starved_after_the_end_of(one, remote)
        one.send(numbers(10, 3))
        two.send(numbers(3, 3))
        assert list(remote) == numbers(3, 3)
        two.send(numbers(13, 3))
        assert sorted(remote) == numbers(10, 6)


def test_min_producers_counts_at_each_broker(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    send_to((one, numbers(0, 2)), (one, numbers(2, 2)), (two, numbers(4, 2)))
    with consumer(one, two, min_producers=2, timeout=ANSWERED) as remote:
        assert sorted(next(remote)[0] for _ in range(6)) == list(range(6))
        with pytest.raises(Starved, match=rf"{two.address} \(1 ended, 2 clean ends are needed"):
            next(remote)
        two.send(numbers(6, 2))
        assert list(remote) == numbers(6, 2)


def fail_in_the_middle(broker: LocalBroker) -> None:
    with Sender(Uplink(broker.address), introduce("0", "default", 1)) as sender:
        sender.send([1])
        sender.fail(fail_message(ValueError("bad jpeg"), "a.jpg", "Traceback ...", fatal=True))
        assert sender.drain()


def test_a_pass_that_broke_off_at_one_broker_is_an_error_and_the_others_go_on(brokers: list[LocalBroker]) -> None:
    one, two = brokers
    with consumer(one, two) as remote:
        remote.reset_state()
        fail_in_the_middle(one)
        assert next(remote) == [1]
        with pytest.raises(PipelineError, match=r"a\.jpg"):
            next(remote)
        with pytest.raises(WorkerLost, match=f"the pass at {one.address} is not complete: 1 of 1 workers"):
            next(remote)
        two.send(numbers(5, 2))
        assert list(remote) == numbers(5, 2)
        assert remote.errors == 2


# ---------------------------------------------------------------------- who is missing


def test_a_broker_that_is_absent_from_the_start_is_named_in_the_log_and_the_others_are_read(
    brokers: list[LocalBroker], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "JOINING", 0.0)
    with consumer(brokers[0], ABSENT) as remote:
        brokers[0].send(numbers(0, 3))
        assert [next(remote) for _ in range(3)] == numbers(0, 3)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [f"the broker at {ABSENT} has not answered; the others are read meanwhile"]


def test_without_any_broker_all_are_named() -> None:
    with consumer(ABSENT, ABSENT + "-either", timeout=SHORT) as remote, pytest.raises(Starved) as caught:
        next(remote)
    assert f"nothing was heard from a broker at {ABSENT} for " in str(caught.value)
    assert f"nothing was heard from a broker at {ABSENT}-either for " in str(caught.value)


def test_a_broker_that_stops_in_the_middle_is_named_when_nothing_else_is_left() -> None:
    with LocalBroker() as one:
        with LocalBroker() as two:
            remote = consumer(one, two, timeout=5)
            two.send(numbers(0, 3))
            assert [next(remote) for _ in range(3)] == numbers(0, 3)
        one.send(numbers(3, 3))
        with remote:
            assert [next(remote) for _ in range(3)] == numbers(3, 3)
            said = starved_until(f"nothing was heard from a broker at {two.address}", remote)
    assert f"The stream of {one.address} has ended" in said


def test_a_broker_that_falls_silent_while_others_deliver_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "GONE", 2)
    stop = threading.Event()
    with LocalBroker() as one:

        def produce() -> None:
            while not stop.is_set():
                one.send(numbers(0, 1))

        with LocalBroker() as two:
            remote = consumer(one, two, min_producers=1_000_000)  # the end is far away
            remote.reset_state()
        silent = f"nothing was heard from the broker at {two.address} for 2 s"
        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        try:
            with remote:
                for _ in remote:
                    if silent in caplog.text or time.monotonic() > deadline:
                        break
        finally:
            stop.set()
            thread.join(60)
    assert silent in caplog.text


def test_two_addresses_of_one_broker_are_refused(free_port: int) -> None:
    with LocalBroker([f"tcp://127.0.0.1:{free_port}"]) as broker:
        remote = consumer(broker.address, broker.endpoints[0])
        with pytest.raises(ConfigError, match=r"are the same broker: with bind=False, give each once"), remote:
            remote.reset_state()
