"""Owns the threads that operators start: daemons that are told to end before the interpreter does."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from dfserve.errors import WorkerLost

Item = TypeVar("Item")

_CHECK_EVERY = 1.0  # seconds that a consumer waits before it looks whether the threads are alive

# Seconds that threads have at exit. One that is caught in the middle of a library's C++ code while that is torn down
# can crash the program, so it is worth a moment; one that waits for a slow server is not worth more.
_GRACE = 1.0


class Threads:
    """Daemon threads of one operator, which they must not refer to, or it would never be collected."""

    def __init__(self, operator: str, targets: Sequence[Callable[[], None]], end: Callable[[], None]) -> None:
        """Start a thread for each of ``targets``, which return soon after ``end`` was called."""
        self._operator = operator
        self._end = end
        self._threads = [
            threading.Thread(target=target, name=f"{operator} {number} of {len(targets)}", daemon=True)
            for number, target in enumerate(targets)
        ]
        _STARTED.add(self)
        for thread in self._threads:
            thread.start()

    def next_of(self, queue: SimpleQueue[Item]) -> Item:
        """Return what the threads put in ``queue`` next, for which they must all be alive.

        Raises:
            WorkerLost: a thread ended, other than by its function's exceptions, which its target is to catch.
        """
        while True:
            try:
                return queue.get(timeout=_CHECK_EVERY)
            except Empty:
                lost = [thread.name for thread in self._threads if not thread.is_alive()]
            if lost and queue.empty():
                raise WorkerLost(f"{self._operator} lost threads in the middle of their work: {', '.join(lost)}")

    def alive(self) -> list[threading.Thread]:
        """Return those that did not end yet."""
        return [thread for thread in self._threads if thread.is_alive()]

    def end(self) -> None:
        """Ask all to end."""
        self._end()


_STARTED: weakref.WeakSet[Threads] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    alive = []
    for threads in list(_STARTED):
        if of_these := threads.alive():  # none in a forked child, where nothing of theirs may be touched
            threads.end()
            alive += of_these
    deadline = time.monotonic() + _GRACE
    for thread in alive:
        thread.join(max(0.0, deadline - time.monotonic()))
