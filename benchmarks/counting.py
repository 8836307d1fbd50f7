"""Owns the counting in a consumer's process: what it takes in a time, what CPU time this costs, and the answer."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psutil

from benchmarks.rounds import Figures


def cpu_seconds(others: Iterable[int] = ()) -> tuple[float, float]:
    """Return the CPU time of this process, and of its children (workers, a hosted broker) and the processes ``others``.

    Where children come and go, as a rival's may, the second is too small by what those had used that have ended.
    """
    own = time.process_time()
    times = []
    for process in [*psutil.Process().children(recursive=True), *map(psutil.Process, others)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times.append(process.cpu_times())
    return own, sum(t.user + t.system for t in times)


def take(data: Iterator[Any], stride: int, seconds: float) -> tuple[int, float]:
    """Take datapoints for a time, and some in any case; return how many and how long it took."""
    items, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not items:
        for datapoint in itertools.islice(data, stride):
            del datapoint
        items += stride
    return items, elapsed


def print_and_end(figures: Figures) -> None:
    """Print the figures as JSON, and end this process and its workers at once; the rivals' would wait for peers."""
    print(json.dumps(figures), flush=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(0)
