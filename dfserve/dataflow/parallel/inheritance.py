"""Owns what a forked child must not keep: pipes whose end tells that a process has died."""

from __future__ import annotations

import os
import threading
import weakref
from multiprocessing.connection import Connection

_PRIVATE: weakref.WeakSet[Connection] = weakref.WeakSet()


def keep_from_children(*ends: Connection) -> None:
    """Close these ends in every child that this process forks from now on, whoever forks it.

    A pipe ends when its last holder has closed it. A child that inherits one by accident, a worker its brother's or a
    program of the user's, would hide the death of the parent from the workers, and that of a worker from the parent.
    """
    _PRIVATE.update(ends)


# Held from the making of a worker's pipes until this process has closed the far ends: a worker that another thread
# forks in between would keep them.
starting = threading.RLock()


def _close_all() -> None:
    global starting
    starting = threading.RLock()  # a thread that held it is not here
    for end in list(_PRIVATE):
        end.close()
    _PRIVATE.clear()


os.register_at_fork(after_in_child=_close_all)
