"""Owns the threads that run pipelines, and the bounded queue between them and one consumer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.parallel.threads import Threads


class End:
    """The end of a pass, in place of a datapoint."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Conveyor:
    """Threads that put datapoints in a queue, and their one consumer's side of it.

    A thread runs a pass for each permit it gets, which is the pass's number. Whatever it puts in the queue takes a
    credit, which the consumer gives back. Both come in queues, so that a thread waits in two places and is woken there.
    """

    def __init__(self, operator: str, pipelines: Sequence[Any], prefetch: int) -> None:
        """Prepare a thread for each of ``pipelines``, which were reset; at most ``prefetch`` datapoints lie ready."""
        self._operator = operator
        self._pipelines = pipelines
        self._items: SimpleQueue[tuple[int, Datapoint | End]] = SimpleQueue()
        self._credits: SimpleQueue[None] = SimpleQueue()
        self._permits: list[SimpleQueue[int | None]] = [SimpleQueue() for _ in pipelines]
        self._failed = [False] * len(pipelines)
        self._wanted_from = 0
        self._closed = False
        self._threads: Threads | None = None
        for _ in range(prefetch):
            self._credits.put(None)
        self.permit(0)

    def start(self) -> None:
        """Start the threads, unless they run."""
        if self._threads is None:
            targets = [functools.partial(self._work, thread) for thread in range(len(self._pipelines))]
            self._threads = Threads(self._operator, targets, self.close)

    def permit(self, number: int) -> None:
        """Let every thread run a pass under this number, after those it was permitted before."""
        for permits in self._permits:
            permits.put(number)

    def give_up_before(self, number: int) -> None:
        """Have passes below ``number`` broken off."""
        self._wanted_from = number

    def revive(self) -> None:
        """Let the threads whose pass failed run another one, under the number 0."""
        for thread, failed in enumerate(self._failed):
            if failed:
                self._failed[thread] = False
                self._permits[thread].put(0)

    def take(self) -> tuple[int, Datapoint | End]:
        """Return what is next: a datapoint or an end, after the number of its pass.

        Raises:
            WorkerLost: a thread is gone.
        """
        assert self._threads is not None
        try:
            return self._threads.next_of(self._items)
        finally:
            # After an interrupt too, which may have come when the item was out of the queue: a credit too much means
            # one more datapoint ready, but one that is lost could mean a thread that waits for ever.
            self._credits.put(None)

    def close(self) -> None:
        """End the threads; those in the middle of a datapoint end after it."""
        self._closed = True
        for permits in self._permits:
            permits.put(None)
            self._credits.put(None)

    def _work(self, thread: int) -> None:
        while (number := self._permits[thread].get()) is not None and not self._closed:
            if number >= self._wanted_from:
                self._run_pass(thread, number)

    def _run_pass(self, thread: int, number: int) -> None:
        position = 0
        try:
            for datapoint in self._pipelines[thread]:
                if not self._put(number, datapoint):
                    return
                position += 1
        except BaseException as error:  # noqa: BLE001  # whatever the pipeline raises: the consumer raises it
            attach_key(error, None, position)
            self._failed[thread] = True
            self._put(number, End(error))
        else:
            self._put(number, End())

    def _put(self, number: int, item: Datapoint | End) -> bool:
        """Put an item in the queue when there is room; return False if it is not wanted any more."""
        self._credits.get()
        if self._closed or number < self._wanted_from:
            self._credits.put(None)
            return False
        self._items.put((number, item))
        return True
