"""Owns the yardstick of a parallel operator: the same work in plain loops, one in each process, and no transport."""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from benchmarks.counting import cpu_seconds
from benchmarks.received import touch, warm_up_of
from benchmarks.rounds import Figures


def looped(make: Callable[..., Callable[[], Any]], args: tuple[Any, ...], processes: int, seconds: float) -> Figures:
    """Count the images that ``make(*args)()`` returns in so many processes, for ``seconds`` after the warm-up.

    They look at each image as a consumer would.
    """
    counts: list[Any] = [multiprocessing.RawValue(ctypes.c_longlong, 0) for _ in range(processes)]
    loops = [multiprocessing.Process(target=_loop, args=(make, args, done), daemon=True) for done in counts]
    for loop in loops:
        loop.start()
    while all(loop.is_alive() for loop in loops) and not all(done.value for done in counts):
        time.sleep(0.01)
    time.sleep(warm_up_of(seconds))
    (own, workers), before, started = cpu_seconds(), sum(done.value for done in counts), time.perf_counter()
    time.sleep(seconds)
    while all(loop.is_alive() for loop in loops) and sum(done.value for done in counts) == before:
        time.sleep(0.01)  # on a machine that does other work not one may be done yet
    items, elapsed = sum(done.value for done in counts) - before, time.perf_counter() - started
    own_after, workers_after = cpu_seconds()
    if not all(loop.is_alive() for loop in loops):
        raise RuntimeError("a plain loop ended; what it printed says why")
    return {"items": items, "seconds": elapsed, "cpu_s": own_after - own, "workers_cpu_s": workers_after - workers}


def _loop(make: Callable[..., Callable[[], Any]], args: tuple[Any, ...], done: Any) -> None:
    work = make(*args)
    while True:
        done.value += touch(work())
