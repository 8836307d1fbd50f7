"""Owns the tests of how a command leaves where Python swallows what a signal's handler raises: in a finaliser."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

SWALLOWED = """
import os, signal, sys, time, weakref
from dfserve.cli.signals import insist, leave

class Thing:
    pass

signum = int(sys.argv[1])
signal.signal(signal.SIGTERM, leave)
insist()
# Python tells this before the hook, so that it is said however late the process is: a moment later it is to end.
sys.addaudithook(lambda event, _: event == "sys.unraisablehook" and print("swallowed", flush=True))
thing = Thing()
weakref.finalize(thing, os.kill, os.getpid(), signum)
try:
    del thing
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""

LATE = """
import signal, sys, time
from dfserve.cli import signals

class Thing:
    def __del__(self):
        raise SystemExit(143)

real = signal.setitimer
def paused(which, seconds, interval=0.0):
    real(which, seconds, interval)
    if not passed:
        passed.append(seconds)
        time.sleep(60 * seconds)  # as on a machine that stands still; the alarm comes in the middle

passed = []
signal.setitimer = paused
signals.insist()
thing = Thing()
del thing
time.sleep(600)
"""

OTHERS = """
import weakref
from dfserve.cli.signals import insist

class Thing:
    pass

insist()
thing = Thing()
weakref.finalize(thing, lambda: 1 // 0)
del thing
"""


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_comes_while_memory_is_given_back_ends_the_command_a_moment_later(
    start: Callable[..., Any], signum: int, status: int
) -> None:
    program = start("-c", SWALLOWED, str(int(signum)))
    assert program.wait() == status
    assert program.output == "swallowed\n"


def test_an_end_that_comes_while_the_next_is_still_being_prepared_is_not_lost(start: Callable[..., Any]) -> None:
    program = start("-c", LATE)
    assert program.wait() == 143
    assert program.output == ""


def test_what_else_is_raised_there_is_said_as_ever(start: Callable[..., Any]) -> None:
    program = start("-c", OTHERS)
    assert program.wait() == 0
    assert "ZeroDivisionError" in program.output
