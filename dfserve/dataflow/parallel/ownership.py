"""Owns whose an operator's workers are: of the process that was reset, of the newest iterator, and until when."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from dfserve.errors import DfserveError


def check_reset(owner: Any, pid: int | None) -> None:
    """Check that ``owner.reset_state()`` was called in this process.

    Args:
        owner: the operator.
        pid: of the process it was called in; None: in none.

    Raises:
        DfserveError: it was not; it says what to do.
    """
    if pid is None:
        raise DfserveError(
            f"{type(owner).__name__} was not reset: call reset_state() once before iterating (in a subclass that"
            " overrides reset_state, call super().reset_state() too)"
        )
    if pid != os.getpid():
        raise DfserveError(
            f"{type(owner).__name__} was reset in process {pid}, and its workers are there; this is process"
            f" {os.getpid()}: call reset_state() in the process that iterates"
        )


def check_newest(owner: Any, newest: bool) -> None:
    """Check that an iterator is the newest of its operator.

    Raises:
        DfserveError: it is not.
    """
    if not newest:
        raise DfserveError(
            f"this iterator of {type(owner).__name__} is superseded: since it was made, iter() or reset_state() was"
            " called again; use one iterator at a time, or two operators"
        )


def end_with(owner: Any, close: Callable[[], None]) -> Callable[[], object]:
    """Have ``close()`` called once: when ``owner`` is collected, at the end of the program, or by what this returns.

    At the end, because workers must not outlive the interpreter that they report to. Never in a forked child: it has a
    copy of the operator, but not of its workers.
    """
    return weakref.finalize(owner, _close_here, close, os.getpid())


def _close_here(close: Callable[[], None], pid: int) -> None:
    if pid == os.getpid():
        close()
