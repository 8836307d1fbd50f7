"""Owns the tests of running a pipeline's passes into a sender, against the real sender and broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dfserve import FactoryError, PipelineError, RemoteDataZMQ
from dfserve.dataflow import DataFlow, DataFromGenerator, DataFromList
from dfserve.dataflow.adapt import as_dataflow
from dfserve.producer.bell import Bell
from dfserve.producer.passes import PassCounter, send_passes
from dfserve.producer.reports import fail_message
from dfserve.producer.send import introduce
from dfserve.producer.sender import Sender
from dfserve.producer.uplink import Uplink
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
    return Sender(Uplink(broker.address), introduce("0", "default", passes))


def run(broker: LocalBroker, pipeline: Any, passes: int | None, blamed: type[BaseException] = Exception) -> PassCounter:
    counter, df = PassCounter(), as_dataflow(pipeline)
    with sender_to(broker, passes) as sender:
        try:
            for _ in send_passes(lambda: df, sender, passes, counter, Bell(), blamed):
                pytest.fail("it paused, and nobody had asked for that")
            return counter
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


def test_an_empty_pass_is_sent_as_such_when_passes_are_counted_and_said(
    broker: LocalBroker, consumer: RemoteDataZMQ, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(broker, [], 1).passes == 1
    assert list(consumer) == []
    assert "yielded no datapoint in its first pass; is its folder empty" in caplog.text


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


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_reported_too_where_only_the_pipeline_can_raise_it(
    broker: LocalBroker, consumer: RemoteDataZMQ, kind: type[BaseException]
) -> None:
    def items() -> Iterator[Any]:
        yield [0]
        raise kind("out of the pipeline")

    with pytest.raises(kind):
        run(broker, DataFromGenerator(items), 1, blamed=BaseException)
    assert next(consumer) == [0]
    with pytest.raises(PipelineError, match=f"{kind.__name__} at item 1 on .*: out of the pipeline") as caught:
        next(consumer)
    assert "in items" in caught.value.remote_traceback


def test_the_log_has_the_traceback_of_what_a_pipeline_raises(
    broker: LocalBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="the disk is on fire"):
        run(broker, Raises(after=0), 1)
    assert "in __iter__" in caplog.text


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


def test_a_pipeline_pauses_between_two_datapoints_when_the_bell_rings_and_then_goes_on(broker: LocalBroker) -> None:
    bell, counter = Bell(), PassCounter()
    with sender_to(broker, None) as sender:
        steps = send_passes(lambda: as_dataflow([[1]] * 100), sender, None, counter, bell)
        bell.rung = True
        for expected in range(1, 6):
            next(steps)
            assert counter.datapoints == expected
        steps.close()
        assert sender.drain()
    assert (counter.datapoints, counter.passes) == (5, 0)
    assert broker.metrics()["dfserve_datapoints_received_total"] == 5


def test_closing_it_is_no_failure_of_the_pipeline_whose_failures_are_all_that_is_raised(
    broker: LocalBroker, caplog: pytest.LogCaptureFixture
) -> None:
    bell = Bell()
    with sender_to(broker, None) as sender:
        steps = send_passes(lambda: as_dataflow([[1]] * 9), sender, None, PassCounter(), bell, BaseException)
        bell.rung = True
        next(steps)
        steps.close()
        assert sender.drain()
    assert "raised" not in caplog.text


@pytest.mark.parametrize("patient", [True, False], ids=["told to stop while it waits", "told not to wait"])
def test_a_datapoint_that_finds_no_room_is_not_taken_and_is_sent_when_there_is(patient: bool) -> None:
    with LocalBroker(queue_bytes=1 << 20) as broker, sender_to(broker, None) as sender:
        sender.patient = patient
        counter = PassCounter()

        class Numbers(DataFlow):
            """Yields large datapoints, and asks for an end when many are held, as a signal handler would."""

            def __iter__(self) -> Iterator[Any]:
                for number in range(200):
                    yield [number, bytes(300_000)]
                    if patient and sender.held > 10:
                        sender.interrupt()

        steps = send_passes(Numbers, sender, 1, counter, Bell())
        next(steps)
        assert counter.datapoints < 200
        with broker.consumer() as consumer, ThreadPoolExecutor(1) as reader:
            numbers = reader.submit(lambda: [number for number, _ in consumer])
            while next(steps, "done") != "done":
                time.sleep(0.001)
            assert numbers.result() == list(range(200))
    assert counter.passes == 1


def test_a_text_that_is_no_utf_8_travels_in_the_report_of_a_failure() -> None:
    error = FileNotFoundError("caf\udce9.jpg")
    fail = fail_message(error, str(error), f"in {error}", fatal=True)
    assert decode(*encode(fail), 0) == fail
    assert "caf" in fail.text
    assert "udce9" in fail.text
