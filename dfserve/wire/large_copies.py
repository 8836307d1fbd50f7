"""Owns the copying of large arrays, which two threads share: one core alone does not use the memory's whole bandwidth.

Measured for 38 MB on 2 cores: 1.5 times as fast. The other thread is started when it is first wanted. There is one for
the process, whoever copies; who finds it busy copies alone.

Signal handlers may raise at any place, as Ctrl-C does. So the two threads speak through what is one call in C each: no
lock is left behind, and what was begun is asked again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

log = logging.getLogger("dfserve.copies")

Array = np.ndarray[Any, Any]

LARGE = 8 << 20  # bytes; what fits into the caches is copied as fast by one core
CHUNK = 1 << 20  # bytes copied at a time: no longer than that takes is a copy's end waited for
PATIENCE = 60.0  # seconds between lines in the log, where a chunk takes so long: of a file on a network that hangs


class _Copy:
    """One copy: the thread that asked for it takes chunks from the first one on, the other from the last.

    Attributes:
        over: nobody copies any more.
        error: what the other thread's part raised, once it is over.
    """

    def __init__(self, target: Array, source: Array) -> None:
        step = max(1, CHUNK // source.itemsize)
        self.chunks = deque(slice(start, start + step) for start in range(0, len(source), step))
        self._arrays = [(target, source)]  # for the other thread; emptied when it is over: nobody is to keep them
        self._with: dict[str, bool] = {}  # whether the other thread takes part: who sets it first decides
        self._outcome: list[BaseException | None] = []  # of the other thread's part, when that is over
        self._news: SimpleQueue[None] = SimpleQueue()  # that it is
        self.over = False
        self.error: BaseException | None = None

    def help(self) -> None:
        """Take part, in the other thread, unless it is over."""
        if not self._with.setdefault("help", True):
            return
        outcome = None
        try:
            _run(*self._arrays[0], self.chunks.pop)
        except BaseException as error:  # noqa: BLE001  # the thread that asked for it raises it
            outcome = error
        self._arrays.clear()
        self._outcome.append(outcome)
        self._news.put(None)

    def end(self) -> None:
        """See that nobody copies any more. Who is interrupted in it asks again, until it is ``over``."""
        self.chunks.clear()
        if self._with.setdefault("help", False):
            while not self._outcome:
                try:
                    self._news.get(timeout=PATIENCE)
                except Empty:  # noqa: PERF203  # once a minute
                    log.warning("a thread that copies an array has been at one part of it for %.0f s", PATIENCE)
            self.error = self._outcome[0]
        self._arrays.clear()
        self.over = True


class _Helper:
    """The other thread, for all who copy in this process."""

    def __init__(self) -> None:
        self.alone = _cores() < 2
        self.forget()

    def forget(self) -> None:
        """Be without the thread: a forked child has none of its parent's."""
        self._asked: SimpleQueue[_Copy] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def invite(self, copy: _Copy) -> None:
        """Ask it to take part, if it can be had."""
        if self.alone:
            return
        if self._thread is None:
            thread = threading.Thread(target=_serve, args=(self._asked,), name="dfserve-copies", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end, or there are too many threads
                return
            self._thread = thread
        self._asked.put(copy)


def _serve(asked: SimpleQueue[_Copy]) -> None:
    while True:
        asked.get().help()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_helper = _Helper()
os.register_at_fork(after_in_child=_helper.forget)


def copy_large(target: Array, source: Array) -> None:
    """Copy an array to another of its shape and dtype.

    Args:
        target: C-contiguous. It and what it is a view of must keep its memory: what is written to is let go of in the
            other thread, a little later.
        source: of any layout; if it is not C-contiguous, the calling thread copies alone.
    """
    if not source.flags.c_contiguous or not source.itemsize:
        target[...] = source
        return
    to, what = target.reshape(-1), np.asarray(source).reshape(-1)
    copy = _Copy(to, what)
    try:
        _helper.invite(copy)
        _run(to, what, copy.chunks.popleft)
    finally:
        raised: BaseException | None = None
        while not copy.over:
            try:
                copy.end()
            except BaseException as error:  # noqa: BLE001, PERF203  # not now: the other thread writes to what we let go
                raised = error
        raised = raised or copy.error
        if raised is not None:
            raise raised


def _run(target: Array, source: Array, take: Callable[[], slice]) -> None:
    """Copy chunks until there are no more."""
    while True:
        try:
            chunk = take()
        except IndexError:
            return
        target[chunk] = source[chunk]
