"""Owns the tests of running a pipeline's passes into a sender, against the real sender and broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dfserve import FactoryError, PipelineError, RemoteDataZMQ
from dfserve.dataflow import DataFlow, DataFromList
from dfserve.dataflow.adapt import as_dataflow
from dfserve.producer.passes import PassCounter, run_passes
from dfserve.producer.send import introduce
from dfserve.producer.sender import Sender, fail_message
from dfserve.testing import LocalBroker
from dfserve.wire.messages import decode, encode


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as broker:
        yield broker


@pytest.fixture
def consumer(broker: LocalBroker) -> Iterator[RemoteDataZMQ]:
    with broker.consumer() as consumer:
        consumer.reset_state()
        yield consumer


def sender_to(broker: LocalBroker, passes: int | None) -> Sender:
    return Sender(broker.address, introduce("0", "default", passes), 50)


def run(broker: LocalBroker, pipeline: Any, passes: int | None, **options: Any) -> PassCounter:
    with sender_to(broker, passes) as sender:
        try:
            return run_passes(as_dataflow(pipeline), sender, passes, **options)
        finally:
            assert sender.drain()


class Raises(DataFlow):
    """Yields a number of datapoints, then raises."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __iter__(self) -> Iterator[Any]:
        yield from ([number] for number in range(self.after))
        raise ValueError("the disk is on fire")


class Resets(DataFlow):
    """Counts its resets and passes."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def reset_state(self) -> None:
        self.events.append("reset")

    def __iter__(self) -> Iterator[Any]:
        self.events.append("pass")
        yield [1]


def test_each_pass_is_sent_whole_and_the_stream_ends(broker: LocalBroker, consumer: RemoteDataZMQ) -> None:
    counter = run(broker, DataFromList([[1], [2], [3]], shuffle=False), 2)
    assert (counter.passes, counter.datapoints) == (2, 6)
    assert [number for (number,) in consumer] == [1, 2, 3, 1, 2, 3]


def test_a_pipeline_is_reset_once_before_its_first_pass(broker: LocalBroker) -> None:
    pipeline = Resets()
    run(broker, pipeline, 3)
    assert pipeline.events == ["reset", "pass", "pass", "pass"]


def test_an_empty_pass_is_sent_as_such_when_passes_are_counted(broker: LocalBroker, consumer: RemoteDataZMQ) -> None:
    assert run(broker, [], 1).passes == 1
    assert list(consumer) == []


def test_an_empty_pipeline_that_should_repeat_for_ever_is_an_error(broker: LocalBroker) -> None:
    with pytest.raises(FactoryError, match="yielded no datapoint in its first pass; is its folder empty"):
        run(broker, [], None)


def test_an_iterator_that_can_run_once_and_should_repeat_is_an_error_that_says_so(broker: LocalBroker) -> None:
    class Once(DataFlow):
        """Behaves like a generator that was returned instead of made anew."""

        def __init__(self) -> None:
            self.items = iter([[1], [2]])

        def __iter__(self) -> Iterator[Any]:
            return self.items

    with pytest.raises(FactoryError, match="pass 2 of the pipeline yielded nothing: it can be iterated only once"):
        run(broker, Once(), None)


def test_what_came_before_an_error_arrives_before_it(broker: LocalBroker, consumer: RemoteDataZMQ) -> None:
    with pytest.raises(ValueError, match="the disk is on fire"):
        run(broker, Raises(after=40), 1)
    assert [next(consumer)[0] for _ in range(40)] == list(range(40))
    with pytest.raises(PipelineError, match="the disk is on fire") as caught:
        next(consumer)
    error = caught.value
    assert (error.key, error.kind) == ("item 40", "ValueError")
    assert error.worker.endswith("/0")
    assert "in __iter__" in error.remote_traceback
    assert error.remote_traceback in str(error)


def test_the_place_of_an_error_counts_from_the_start_of_its_pass(broker: LocalBroker, consumer: RemoteDataZMQ) -> None:
    class SecondPass(DataFlow):
        """Raises in its second pass."""

        passes = 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            yield [0]
            if self.passes == 2:
                raise ValueError("now")
            yield [1]

    with pytest.raises(ValueError, match="now"):
        run(broker, SecondPass(), 2)
    with pytest.raises(PipelineError) as caught:
        list(consumer)
    assert caught.value.key == "item 1"


def test_a_pipeline_that_is_told_to_stop_stops_between_two_datapoints_and_does_not_end_the_stream(
    broker: LocalBroker,
) -> None:
    asked: list[None] = []

    def stopped() -> bool:
        asked.append(None)
        return len(asked) > 5

    counter = run(broker, DataFromList([[1]] * 100), None, stopped=stopped)
    assert (counter.datapoints, counter.passes) == (5, 0)
    assert broker.metrics()["dfserve_datapoints_received_total"] == 5


def test_a_send_that_waits_for_room_is_interrupted_and_its_datapoint_not_taken() -> None:
    with LocalBroker(queue_bytes=1 << 20) as broker, sender_to(broker, None) as sender:
        large = [bytes(700_000)]
        counter = PassCounter()

        class Interrupts(DataFlow):
            """Sends until nothing more goes, then asks for an end, as a signal handler would."""

            def __iter__(self) -> Iterator[Any]:
                for _ in range(200):
                    yield large
                    if sender.held > 20:
                        sender.interrupt()

        run_passes(Interrupts(), sender, None, counter=counter)
        assert counter.datapoints < 200
        assert counter.passes == 0
        assert broker.metrics()["dfserve_datapoints_received_total"] <= counter.datapoints


def test_a_text_that_is_no_utf_8_travels_in_the_report_of_a_failure() -> None:
    error = FileNotFoundError("caf\udce9.jpg")
    fail = fail_message(error, str(error), f"in {error}", fatal=True)
    assert decode(*encode(fail), 0) == fail
    assert "caf" in fail.text
    assert "udce9" in fail.text
