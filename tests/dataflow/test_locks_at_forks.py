"""Forks beside threads that hold locks: no child waits for a thread that it does not have, and no fork for ever."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]

# A child that hangs is killed by its alarm, which its status tells.
COMMON = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is what is tested
import numpy as np
from dfserve.dataflow import locks_at_forks
from dfserve.dataflow.afresh import start_afresh
from dfserve.dataflow.rng import Place, get_rng

def forked(do):
    if not (pid := os.fork()):
        signal.alarm(20)
        do()
        os._exit(0)
    return os.waitpid(pid, 0)[1]
"""

DRAWING = """
rng = {"ours": get_rng(), "numpy's": np.random.mtrand._rand}[sys.argv[1]]
begun = threading.Event()
def draw():
    while True:
        begun.set()
        rng.standard_normal(3_000_000)  # a moment in which the lock is held, and the GIL is not
threading.Thread(target=draw, daemon=True).start()
begun.wait()
time.sleep(0.01)
def child():
    start_afresh(Place())
    rng.rand()
print([forked(child) for _ in range(3)], flush=True)
os._exit(0)
"""

STUCK = """
locks_at_forks.PATIENCE = 0.05
stuck, other = threading.Lock(), threading.Lock()
locks_at_forks.hold_at_forks(lambda: [stuck, other])
threading.Thread(target=stuck.acquire).start()
def child():
    assert stuck.locked() and not other.locked()
print([forked(child) for _ in range(3)], stuck.locked(), other.locked(), flush=True)
"""

MANY = """
locks = [threading.RLock() for _ in range(50)]
locks_at_forks.hold_at_forks(lambda: [*locks, *locks[:5]])
locks_at_forks.hold_at_forks(lambda: reversed(locks))
statuses = []
def child():
    assert all(lock.acquire(timeout=1) for lock in locks)
def fork_often():
    for _ in range(20):
        statuses.append(forked(child))
threads = [threading.Thread(target=fork_often) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(statuses == [0] * 60, flush=True)
"""


@pytest.mark.parametrize("whose", ["ours", "numpy's"])
def test_a_child_that_is_forked_while_a_thread_draws_can_draw(start: Start, whose: str) -> None:
    program = start("-c", COMMON + DRAWING, whose)
    assert program.wait() == 0
    assert program.output == "[0, 0, 0]\n", f"{int(signal.SIGALRM)}: a child hung"


def test_a_lock_that_is_never_free_delays_a_fork_and_does_not_stop_it(start: Start) -> None:
    program = start("-c", COMMON + STUCK)
    assert program.wait() == 0
    assert program.output == "[0, 0, 0] True False\n"


def test_threads_that_fork_at_once_do_not_wait_for_each_other_for_ever(start: Start) -> None:
    program = start("-c", COMMON + MANY)
    assert program.wait() == 0
    assert program.output == "True\n"
