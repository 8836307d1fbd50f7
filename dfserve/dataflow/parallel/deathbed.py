"""Owns the kernel's promise that a worker dies with its parent, even one that holds the interpreter's lock for ever."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

from dfserve.dataflow.parallel.leash import ABANDONED

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends; elsewhere nothing happens.

    Only for a process that the main thread of its parent started, whose end is that of the parent. The others have
    their leash, which needs Python to run here.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # before we had asked
            os._exit(ABANDONED)
