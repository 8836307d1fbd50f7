"""Owns what runs in the producer's and in the consumer's process: `python -m benchmarks.latency.peer ...`."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.counting import print_and_end
from benchmarks.rounds import Figures
from benchmarks.transport.cases import CASES, Source

WARM_UP = 2.0  # seconds from the first datapoint on that do not count; less, where less is measured


class Paced(Source):
    """Datapoints at a rate, each with the time at which it was yielded, in ns of a clock that all processes share."""

    def __init__(self, datapoint: list[Any], rate: float) -> None:
        super().__init__(datapoint)
        self._every = 1.0 / rate
        self._next = time.monotonic()

    def __iter__(self) -> Iterator[list[Any]]:
        for datapoint in super().__iter__():
            wait = self._next - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            # Who was held up does not catch up: that would be another load.
            self._next = max(self._next + self._every, time.monotonic() - self._every)
            yield [*datapoint, np.array([time.monotonic_ns()])]


def latencies(data: Iterator[Any], seconds: float) -> Figures:
    """Return how long datapoints were under way, of those that come in a time."""
    next(data)
    for counts in (False, True):
        nanoseconds: list[int] = []
        started = time.monotonic()
        until = started + (seconds if counts else min(WARM_UP, seconds))
        while (now := time.monotonic()) < until or not nanoseconds:
            stamp = next(data)[-1]
            nanoseconds.append(time.monotonic_ns() - int(np.frombuffer(stamp, np.int64)[0]))
    p50, p99 = np.percentile(np.array(nanoseconds) / 1e6, [50, 99])
    return {"items": len(nanoseconds), "seconds": now - started, "p50_ms": float(p50), "p99_ms": float(p99)}


def main(role: str, side: str, case: str, address: str, number: str) -> None:
    """Send ``number`` datapoints/s until killed, or receive for ``number`` seconds and print the figures as JSON."""
    module = importlib.import_module(f"benchmarks.transport.{side}")
    if role == "send":
        module.send(Paced(CASES[case].make(), float(number)), address)
    print_and_end(latencies(module.receive(address, case), float(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
