"""Owns how a command leaves when a signal tells it to."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

AGAIN = 0.01  # seconds until a process that was told to end tries once more


def leave(signum: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that everything is cleaned up and no process is left; the status is the shell's."""
    raise SystemExit(128 + signum)


def insist() -> None:
    """Have what a signal's handler raised raised a moment later where Python swallowed it: in a finaliser."""
    sys.unraisablehook = _again


def _again(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not isinstance(error, (KeyboardInterrupt, SystemExit)) or not _handles_signals():
        sys.__unraisablehook__(unraisable)
        return
    kind, args = type(error), error.args  # not the error: it holds the frames that it came through

    def late(_signum: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is _again.__code__:  # on a machine that stood still; it would be swallowed here, for good
                signal.setitimer(signal.ITIMER_REAL, AGAIN)
                return
            frame = frame.f_back
        raise kind(*args)

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _handles_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
