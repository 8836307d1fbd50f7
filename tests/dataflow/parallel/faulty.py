"""Owns what is started, killed and looked at by test_faults: `python faulty.py KIND SCENARIO`, run as a program."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

import pipelines as p

from dfserve.dataflow import MapData
from dfserve.dataflow.parallel.map_and_batch import MultiProcessMapAndBatchData
from dfserve.dataflow.parallel.process_map import MultiProcessMapData
from dfserve.dataflow.parallel.process_runner import MultiProcessRunner, MultiProcessRunnerZMQ
from dfserve.dataflow.parallel.thread_map import MultiThreadMapData
from dfserve.dataflow.parallel.thread_runner import MultiThreadRunner

# Every parallel class, as a function of a source and of what is applied to each of its datapoints.
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "MultiProcessRunner": lambda ds, func: MultiProcessRunner(MapData(ds, func), 20, 2),
    "MultiProcessRunnerZMQ": lambda ds, func: MultiProcessRunnerZMQ(MapData(ds, func), 1),
    "MultiThreadRunner": lambda ds, func: MultiThreadRunner(lambda: MapData(ds, func), 20, 2),
    "MultiThreadMapData": lambda ds, func: MultiThreadMapData(ds, 2, func, buffer_size=20),
    "MultiThreadMapData strict": lambda ds, func: MultiThreadMapData(ds, 2, func, buffer_size=20, strict=True),
    "MultiThreadMapData ordered": lambda ds, func: MultiThreadMapData(ds, 2, func, buffer_size=20, ordered=True),
    "MultiProcessMapData": lambda ds, func: MultiProcessMapData(ds, 2, func, buffer_size=20),
    "MultiProcessMapData strict": lambda ds, func: MultiProcessMapData(ds, 2, func, buffer_size=20, strict=True),
    "MultiProcessMapData ordered": lambda ds, func: MultiProcessMapData(ds, 2, func, buffer_size=20, ordered=True),
    "MultiProcessMapAndBatchData": lambda ds, func: MultiProcessMapAndBatchData(ds, 2, func, 4, 20),
}


def made(kind: str, source: Any, func: Any) -> Any:
    """Return an operator of that kind, ready to iterate."""
    ds = KINDS[kind](source, func)
    ds.reset_state()
    return ds


def say(what: str) -> None:
    print(json.dumps([what, *(child.pid for child in multiprocessing.active_children())]), flush=True)


def hanging(kind: str) -> None:
    """Have every worker in the user's function, where it stays."""
    ds = made(kind, p.numbers(1000), p.hanging)
    say("running")
    next(iter(ds))


def running(kind: str) -> None:
    """Iterate without end: whoever is to interrupt it may be late."""
    ds = made(kind, p.numbers(1000), p.slow)
    for number, _ in enumerate(itertools.chain.from_iterable(itertools.repeat(ds))):
        if number == 10:
            say("running")


def abandoned(kind: str) -> None:
    """Give up in the middle."""
    ds = made(kind, p.numbers(1000), p.slow)
    for number, _ in enumerate(ds):
        if number == 10:
            break
    say("running")
    del ds
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    say("collected")


def leaving(kind: str) -> None:
    """End the program while the operator and an iterator of it are alive."""
    ds = made(kind, p.numbers(1000), p.slow)
    global _kept
    _kept = [ds, iter(ds)]
    for _ in range(10):
        next(_kept[1])
    say("running")


def deaf(kind: str) -> None:
    """Have a worker in a function that never lets another thread of its process run."""
    ds = made(kind, p.numbers(1000), p.holding_the_lock)
    say("running")
    next(iter(ds))


_kept: list[Any] = []

if __name__ == "__main__":
    globals()[sys.argv[2]](sys.argv[1])
