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
thing = Thing()
weakref.finalize(thing, os.kill, os.getpid(), signum)
try:
    del thing
    print("swallowed", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
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


def test_what_else_is_raised_there_is_said_as_ever(start: Callable[..., Any]) -> None:
    program = start("-c", OTHERS)
    assert program.wait() == 0
    assert "ZeroDivisionError" in program.output
