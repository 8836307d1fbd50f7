"""Owns what runs in the producer's and in the consumer's process: `python -m benchmarks.peer ROLE SIDE ...`."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil

from benchmarks.cases import CASES, Source

WARM_UP = 3.0  # seconds from the first datapoint on that do not count: queues fill, allocators and windows settle


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of this process, and of its children (a hosted broker)."""
    own = time.process_time()
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return own, sum(t.user + t.system for t in times)


def take(data: Iterator[Any], stride: int, seconds: float) -> tuple[int, float]:
    """Take datapoints for a time; return how many and how long it took."""
    items, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for datapoint in itertools.islice(data, stride):
            del datapoint
        items += stride
    return items, elapsed


def consume(data: Iterator[Any], stride: int, seconds: float) -> dict[str, float]:
    """Measure a consumer: datapoints, seconds, and the CPU seconds that went by here and in the broker."""
    next(data)
    take(data, stride, WARM_UP)
    own, broker = cpu_seconds()
    items, elapsed = take(data, stride, seconds)
    own_after, broker_after = cpu_seconds()
    return {"items": items, "seconds": elapsed, "cpu_s": own_after - own, "broker_cpu_s": broker_after - broker}


def main(role: str, side: str, case: str, address: str, seconds: str = "0") -> None:
    """Send until killed, or receive for a time, print the figures as JSON and exit."""
    module = importlib.import_module(f"benchmarks.{side}")
    chosen = CASES[case]
    if role == "send":
        module.send(Source(chosen.make()), address)
    data = module.receive(address)
    print(json.dumps(consume(data, chosen.stride, float(seconds))), flush=True)
    data.close()
    os._exit(0)  # the rivals' sockets would wait for their peers


if __name__ == "__main__":
    main(*sys.argv[1:])
