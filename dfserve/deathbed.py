"""Owns the promise that a process dies with its parent, even one that holds the interpreter's lock for ever."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def starter(method: str) -> int | None:
    """Return what to tell a worker that this thread starts: whom it is to die with (`die_with`); None: nobody."""
    if threading.current_thread() is not threading.main_thread():
        return None  # this thread may end, and the process live on
    return 0 if method == "forkserver" else os.getpid()


def die_with(parent: int, status: int) -> None:
    """Ask Linux to kill this process when the thread that started it ends; elsewhere it is only seen if it has.

    Only for a process that the main thread of its parent started, whose end is that of the parent.

    Args:
        parent: who started it; 0 if that is not known (a forkserver did). If another is its parent now, that one died
            before we asked.
        status: with which this process exits then; nobody is left to read it.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        os._exit(status)
