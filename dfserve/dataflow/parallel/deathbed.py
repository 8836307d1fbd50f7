"""Owns the kernel's promise that a worker dies with its parent, even one that holds the interpreter's lock for ever."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

from dfserve.dataflow.parallel.leash import ABANDONED

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def starter(method: str) -> int | None:
    """Return what to tell a worker that this thread starts: whom it is to die with (`die_with`); None: nobody."""
    if threading.current_thread() is not threading.main_thread():
        return None  # this thread may end, and the process live on
    return 0 if method == "forkserver" else os.getpid()


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when the thread that started it ends; elsewhere nothing happens.

    Only for a process that the main thread of its parent started, whose end is that of the parent. The others have
    their leash, which needs Python to run here.

    Args:
        parent: who started it, if that was no forkserver. If another is its parent now, it died before we asked.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent and os.getppid() != parent:
            os._exit(ABANDONED)
