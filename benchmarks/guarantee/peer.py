"""Owns what runs in the consumer's process: `python -m benchmarks.guarantee.peer SIDE CASE ADDRESS SECONDS`."""

from __future__ import annotations

import sys

from benchmarks.counting import cpu_seconds, print_and_end, take
from benchmarks.guarantee.cases import CASES, OPTIONS
from dfserve.consumer.remote import RemoteDataZMQ

WARM_UP = 2.0  # seconds from the first datapoint on that do not count


def main(side: str, case: str, address: str, seconds: str) -> None:
    """Receive for a time, print the figures as JSON and exit."""
    data = iter(RemoteDataZMQ(address, **OPTIONS[side]))
    stride = CASES[case].stride
    next(data)
    take(data, stride, WARM_UP)
    own, broker = cpu_seconds()
    items, elapsed = take(data, stride, float(seconds))
    own_after, broker_after = cpu_seconds()
    print_and_end({"items": items, "seconds": elapsed, "cpu_s": own_after - own, "broker_cpu_s": broker_after - broker})


if __name__ == "__main__":
    main(*sys.argv[1:])
