"""Owns what runs in the trainer's process: `python -m benchmarks.trainer.peer SIDE CASE ADDRESS SECONDS`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.counting import cpu_seconds, print_and_end, take
from benchmarks.guarantee.cases import CASES
from benchmarks.rounds import Figures
from benchmarks.trainer.steps import BATCH, SIDES, Side, nothing
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.dataflow import BatchData

WARM_UP = 2.0  # seconds from the first datapoint on that do not count


def data_of(side: Side, address: str) -> Iterator[Any]:
    """Return what the trainer iterates over."""
    remote = RemoteDataZMQ(address, **dict(side.options))
    data: Any = BatchData(remote, side.batch) if side.batch else remote
    data.reset_state()
    return iter(data)


def trained(side: Side, data: Iterator[Any], seconds: float) -> tuple[int, list[float]]:
    """Take batches, with a step after each, for a time; return how many, and the seconds of each wait."""
    waits: list[float] = []
    end = time.perf_counter() + seconds
    while (asked := time.perf_counter()) < end or not waits:
        batch = next(data)
        waits.append(time.perf_counter() - asked)
        side.step()
        del batch
    return len(waits), waits


def measured(side: Side, data: Iterator[Any], stride: int, seconds: float) -> Figures:
    """Return the figures of so many seconds: datapoints, CPU time, and for batches how long each was waited for."""
    batched = side.batch or "batch_size" in dict(side.options)
    if not batched:
        items, elapsed = take(data, stride, seconds)
        return {"items": items, "seconds": elapsed}
    started = time.perf_counter()
    batches, waits = trained(side, data, seconds)
    middle, high = np.percentile(waits, [50, 99]) * 1e3
    elapsed = time.perf_counter() - started
    return {"items": batches * BATCH, "seconds": elapsed, "wait_ms": float(middle), "wait_high_ms": float(high)}


def main(name: str, case: str, address: str, seconds: str) -> None:
    """Receive for a time, print the figures as JSON and exit."""
    side = SIDES[name]
    stride = CASES[case].stride
    data = data_of(side, address)
    next(data)
    side.begin()
    measured(side, data, stride, WARM_UP)
    own, broker = cpu_seconds()
    figures = measured(side, data, stride, float(seconds))
    own_after, broker_after = cpu_seconds()
    alone = side.step is nothing and side.begin is nothing
    cpu = {"cpu_s": own_after - own} if alone else {}
    print_and_end({**figures, **cpu, "broker_cpu_s": broker_after - broker})


if __name__ == "__main__":
    main(*sys.argv[1:])
