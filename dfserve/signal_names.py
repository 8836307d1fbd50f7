"""Owns the names of signals in messages, also of those that Python has no name for."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9, and ``signal 40`` for one of the real-time signals, most of which have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
