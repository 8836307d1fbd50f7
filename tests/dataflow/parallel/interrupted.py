"""Owns a program that is interrupted all the time while it iterates: `python interrupted.py PROCESSES`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pipelines as p

from dfserve.dataflow import MultiProcessRunnerZMQ


class Interrupted(BaseException):
    """What Ctrl-C or an alarm raises, between any two lines."""


def interrupt(*_: object) -> None:
    raise Interrupted


def main(num_proc: int) -> None:
    sys.unraisablehook = lambda _: None  # Python swallows what is raised in a finaliser, and says so
    runner = MultiProcessRunnerZMQ(p.Counted(200, (100,), claimed=200), num_proc)
    runner.reset_state()
    signal.signal(signal.SIGALRM, interrupt)
    for number in range(60):
        with contextlib.suppress(Interrupted):  # the alarm, which comes once, may do so from one call to the other
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 0.0002)
            for expected, array in runner:
                assert (array == expected).all()
            signal.setitimer(signal.ITIMER_REAL, 0)
    numbers = [dp[0] for dp in runner]
    assert len(numbers) == 200
    assert num_proc > 1 or numbers == list(range(200))
    print("works", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
