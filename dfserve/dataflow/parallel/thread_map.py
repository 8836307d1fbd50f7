"""Owns MapData in threads: MultiThreadMapData."""

from __future__ import annotations

import queue
from collections.abc import Callable
from copy import copy
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.map_base import ParallelMapData
from dfserve.dataflow.parallel.pool import Pool
from dfserve.dataflow.parallel.threads import Threads
from dfserve.dataflow.parallel.window import Outcome
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError

_Task = tuple[int, Any]  # ticket and datapoint


class ThreadPool(Pool):
    """Threads that apply a function to datapoints, each to one at a time."""

    def __init__(self, operator: str, num_thread: int, func: Callable[[Any], Any]) -> None:
        """Start the threads."""
        self._func = func
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._count = num_thread
        self._wanted_from = 0
        self._closed = False
        self._threads = Threads(operator, [self._work] * num_thread, self.close)

    def submit(self, ticket: int, datapoint: Any) -> None:
        self._tasks.put((ticket, datapoint))

    def collect(self, wait: bool) -> list[Outcome]:
        outcomes = self._outcomes
        found = [self._threads.next_of(outcomes)] if wait else []
        found += [outcomes.get() for _ in range(outcomes.qsize())]
        return found

    def forget(self, before: int) -> None:
        self._wanted_from = before

    def close(self) -> None:
        self._closed = True
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            self._outcomes.put(self._outcome(*task))
            del task  # it must not be kept alive while the thread waits for the next

    def _outcome(self, ticket: int, datapoint: Any) -> Outcome:
        if ticket < self._wanted_from:
            return Outcome(ticket)
        try:
            return Outcome(ticket, self._func(copy(datapoint)))
        except BaseException as error:  # noqa: BLE001  # whatever the user's function raises: the consumer raises it
            return Outcome(ticket, None, error)


class MultiThreadMapData(ParallelMapData):
    """MapData whose function runs in ``num_thread`` threads: for functions that wait, or work without the GIL.

    ``strict=True`` gives in each pass exactly what ``MapData(ds, map_func)`` gives, in another order; ``ordered=True``
    in the same order. With neither, it is the endless ``RepeatedData(MapData(ds, map_func), -1)``, in another order.

    The source is read by the thread that iterates. The threads start with the first iteration, are daemons, and end
    with ``reset_state()``, with this object, or with the program. They refer to ``map_func``: if that is a method of
    this object's own, the object is not collected, and its threads stay, until ``reset_state()`` or the program's end.
    """

    @old_keywords(nr_thread="num_thread")
    def __init__(
        self,
        ds: Any,
        num_thread: int | None = None,
        map_func: Callable[[Any], Datapoint | None] | None = None,
        *,
        buffer_size: int = 200,
        strict: bool = False,
        ordered: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        """Map ``ds``.

        Args:
            ds: a DataFlow.
            num_thread: threads. Required.
            map_func: takes a shallow copy of a datapoint, returns a datapoint, or None to drop it. Called by several
                threads at once. Required.
            buffer_size: datapoints that may be in flight: read from ``ds`` and not yet yielded.
            strict: yield exactly the mapped datapoints of one pass.
            ordered: yield them in the order of ``ds``; implies ``strict``.
            on_error: what to do with a datapoint for which the function raises: ``"raise"`` the exception itself,
                ``"skip"``, or a ``SkipErrors`` with limits. SystemExit and KeyboardInterrupt are raised in any case.

        Raises:
            ConfigError: ``num_thread`` or ``map_func`` is missing, or a number is below 1.
        """
        super().__init__(ds, buffer_size, strict=strict, ordered=ordered, on_error=on_error)
        self.num_thread = positive(num_thread, "num_thread")
        if map_func is None:
            raise ConfigError(f"{type(self).__name__} needs map_func, the function to apply")
        self.map_func = map_func

    def _open_pool(self) -> ThreadPool:
        return ThreadPool(type(self).__name__, self.num_thread, self.map_func)
