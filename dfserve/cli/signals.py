"""Owns how a command that has started processes leaves when a signal tells it to."""

from __future__ import annotations

from types import FrameType
from typing import NoReturn


def leave(signum: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that everything is cleaned up and no process is left; the status is the shell's."""
    raise SystemExit(128 + signum)
