"""Owns what runs in the producer's and in the consumer's process: `python -m benchmarks.transport.peer ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.counting import cpu_seconds, print_and_end, take
from benchmarks.transport.cases import CASES, Case, Source

WARM_UP = 3.0  # seconds from the first datapoint on that do not count: queues fill, allocators and windows settle.
# Less, where less is measured.


def size_of(part: Any) -> int:
    """Return the bytes of what came as a datapoint: of arrays, tensors and ZeroMQ's frames; numbers have none."""
    if isinstance(part, list | tuple):
        return sum(map(size_of, part))
    if hasattr(part, "buffer"):
        part = part.buffer
    return int(getattr(part, "nbytes", 0))


def consume(data: Iterator[Any], case: Case, seconds: float, others: Sequence[int] = ()) -> dict[str, float]:
    """Measure a consumer: datapoints, seconds, and the CPU seconds that went by here and in the broker.

    The broker is each child of this process, and the processes ``others``.
    """
    size = size_of(next(data))
    if size < case.nbytes:
        raise ValueError(f"a datapoint of {size} bytes came, and {case.nbytes} were sent")
    stride = case.stride
    take(data, stride, min(WARM_UP, seconds))
    own, broker = cpu_seconds(others)
    items, elapsed = take(data, stride, seconds)
    own_after, broker_after = cpu_seconds(others)
    return {"items": items, "seconds": elapsed, "cpu_s": own_after - own, "broker_cpu_s": broker_after - broker}


def main(role: str, side: str, case: str, address: str, seconds: str = "0", *others: str) -> None:
    """Send until killed, or receive for a time, print the figures as JSON and exit.

    The pids ``others`` are those of processes between the two.
    """
    module = importlib.import_module(f"benchmarks.transport.{side}")
    chosen = CASES[case]
    if role == "send":
        module.send(Source(chosen.make()), address)
    data = module.receive(address, case)
    print_and_end(consume(data, chosen, float(seconds), [int(pid) for pid in others]))


if __name__ == "__main__":
    main(*sys.argv[1:])
