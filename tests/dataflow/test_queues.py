"""The source that reads a queue: queues of every kind, waits that say so, and ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import queue
import sys
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from dfserve.dataflow import queues
from dfserve.dataflow.queues import DataFromQueue
from dfserve.errors import ConfigError, UnknownLengthError

LONG_ENOUGH = 30  # seconds: a hang becomes a failure


class Bare:
    """A queue with a get() that blocks and takes nothing."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()
        self.put = self._queue.put

    def get(self) -> Any:
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item


class Picklable:
    def get(self, timeout: float) -> Any:
        return [1]


KINDS: list[Callable[[], Any]] = [
    queue.Queue,
    queue.SimpleQueue,
    multiprocessing.Queue,
    multiprocessing.SimpleQueue,
    Bare,
]


@pytest.mark.parametrize("kind", KINDS)
def test_datapoints_come_in_the_order_of_the_queue_over_several_passes(kind: Callable[[], Any]) -> None:
    full = kind()
    for n in range(6):
        full.put([n])
    ds = DataFromQueue(full)
    assert list(islice(ds, 2)) == [[0], [1]]
    assert list(islice(ds, 4)) == [[2], [3], [4], [5]]


@pytest.mark.parametrize("kind", KINDS)
def test_stop_ends_a_pass_that_waits_and_those_to_come(kind: Callable[[], Any]) -> None:
    ds = DataFromQueue(kind())
    ended: queue.Queue[list[Any]] = queue.Queue()
    thread = threading.Thread(target=lambda: ended.put(list(ds)), daemon=True)
    thread.start()
    ds.stop()
    assert ended.get(timeout=LONG_ENOUGH) == []
    thread.join(LONG_ENOUGH)
    assert list(ds) == []


def test_stop_leaves_the_rest_in_the_queue() -> None:
    full: queue.Queue[Any] = queue.Queue()
    for n in range(3):
        full.put([n])
    ds = DataFromQueue(full)
    taken = []
    for datapoint in ds:
        taken.append(datapoint)
        ds.stop()
    assert (taken, full.qsize()) == ([[0]], 2)


class Empty:
    """The queue of a camera that sends nothing: every wait for it ends at once, and the third stops the source."""

    def __init__(self) -> None:
        self.waits = 0
        self.stop: Callable[[], None]

    def get(self, timeout: float) -> Any:
        self.waits += 1
        if self.waits == 3:
            self.stop()
        raise queue.Empty

    def __repr__(self) -> str:
        return "<the queue of the camera>"


@pytest.mark.parametrize(("long", "warnings"), [(0.0, 3), (1000.0, 0)])
def test_a_queue_that_stays_empty_for_long_is_named_in_the_log(
    long: float, warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queues, "_LONG", long)
    empty = Empty()
    ds = DataFromQueue(empty)
    empty.stop = ds.stop
    assert list(ds) == []
    assert len(caplog.records) == warnings
    assert all("empty queue <the queue of the camera>" in record.getMessage() for record in caplog.records)


def test_what_a_given_up_wait_brings_later_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_LOOK", 0.01)
    bare = Bare()
    ds = DataFromQueue(bare)

    class Interrupted(BaseException):
        """As a Ctrl-C while the wait goes on."""

    real = queues._Fetcher.take

    def interrupted(self: Any, timeout: float) -> Any:
        try:
            return real(self, timeout)
        except queue.Empty:
            raise Interrupted from None

    monkeypatch.setattr(queues._Fetcher, "take", interrupted)
    with pytest.raises(Interrupted):
        list(ds)
    monkeypatch.setattr(queues._Fetcher, "take", real)
    for n in range(3):
        bare.put([n])
    assert list(islice(ds, 3)) == [[0], [1], [2]]


def test_the_thread_that_reads_a_queue_without_timeouts_ends_with_the_pass() -> None:
    bare = Bare()
    bare.put([0])
    before = threading.enumerate()
    datapoints: Any = iter(DataFromQueue(bare))
    assert next(datapoints) == [0]
    (thread,) = [thread for thread in threading.enumerate() if thread not in before]
    datapoints.close()
    thread.join(LONG_ENOUGH)
    assert not thread.is_alive()


def test_what_get_raises_the_pass_raises() -> None:
    bare = Bare()
    bare.put(ConnectionError("the other side is gone"))
    with pytest.raises(ConnectionError, match="the other side is gone"):
        list(DataFromQueue(bare))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues can be shut down since Python 3.13")
def test_shutting_the_queue_down_ends_the_pass_after_what_is_in_it() -> None:
    full: Any = queue.Queue()
    full.put([1])
    full.shutdown()
    assert list(DataFromQueue(full)) == [[1]]


def test_a_queue_that_says_it_is_shut_down_ends_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class ShutDown(Exception):
        """As queue.ShutDown, where there is none."""

    bare = Bare()
    bare.put([1])
    bare.put(ShutDown())
    monkeypatch.setattr(queues, "_ShutDown", ShutDown)
    assert list(DataFromQueue(bare)) == [[1]]


def test_a_queue_of_another_process_is_read() -> None:
    context = multiprocessing.get_context("spawn")
    shared = context.Queue()
    process = context.Process(target=shared.put, args=([7],))
    process.start()
    assert next(iter(DataFromQueue(shared))) == [7]
    process.join(LONG_ENOUGH)
    assert process.exitcode == 0


def test_its_length_is_unknown() -> None:
    with pytest.raises(UnknownLengthError):
        len(DataFromQueue(queue.Queue()))


@pytest.mark.parametrize("given", [[[1]], 5, None, asyncio.Queue])
def test_what_has_no_get_that_blocks_is_refused(given: Any) -> None:
    wrong = given() if isinstance(given, type) else given
    with pytest.raises(ConfigError, match="is no queue"):
        DataFromQueue(wrong)


def test_it_pickles_when_its_queue_does() -> None:
    ds = DataFromQueue(Picklable())
    ds.reset_state()
    assert list(islice(pickle.loads(pickle.dumps(ds)), 2)) == [[1], [1]]


def test_a_wait_that_was_given_up_is_forgotten_by_a_reset() -> None:
    bare = Bare()
    ds = DataFromQueue(bare)
    ds._left = [object()]  # type: ignore[list-item]  # one whose thread a fork left behind would wait for ever
    bare.put([1])
    ds.reset_state()
    assert next(iter(ds)) == [1]
