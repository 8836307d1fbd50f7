"""Owns what runs in the producer's and in the consumer's process: `python -m benchmarks.transport.peer ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.counting import cpu_seconds, print_and_end, take
from benchmarks.transport.cases import CASES, Source

WARM_UP = 3.0  # seconds from the first datapoint on that do not count: queues fill, allocators and windows settle


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
    module = importlib.import_module(f"benchmarks.transport.{side}")
    chosen = CASES[case]
    if role == "send":
        module.send(Source(chosen.make()), address)
    data = module.receive(address)
    print_and_end(consume(data, chosen.stride, float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
