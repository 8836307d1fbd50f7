"""Owns locks of libraries over a fork: the child could wait for ever for one that another thread of its parent held.

That thread is not in the child, but the lock is, held for good. Locks of our own are made anew there. Those that cannot
be, such as numpy's of a generator that draws, are taken before the fork, as Python itself does with those of `logging`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

# Seconds that a fork waits for all of them: longer than any draw takes on a busy machine. After that it is made all the
# same, since a program that does not fork hangs for certain.
PATIENCE = 10.0

_forking = threading.RLock()  # of two threads that fork at once, each could have locks that the other waits for
_held: list[Any] = []


def hold_at_forks(find: Callable[[], Iterable[Any]]) -> None:
    """Hold the locks that ``find()`` returns during each fork. What the caller registers later finds them free."""
    os.register_at_fork(before=lambda: _hold(find()), after_in_parent=_release, after_in_child=_release)


def _hold(locks: Iterable[Any]) -> None:
    _forking.acquire()
    deadline = time.monotonic() + PATIENCE
    for lock in {id(lock): lock for lock in locks}.values():
        _held.append(lock)  # first: Ctrl-C between the two must not leave one held
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            _held.pop()


def _release() -> None:
    for lock in (*_held, _forking):
        with suppress(RuntimeError):  # Ctrl-C came before it was taken
            lock.release()
    _held.clear()
