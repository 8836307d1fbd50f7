"""Owns the pipelines and consumers that the end-to-end tests run in processes of their own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfserve import RemoteDataZMQ
from dfserve.dataflow import DataFlow, DataFromList


class Numbers(DataFlow):
    """``count`` datapoints [number, array of ``nbytes`` bytes filled with the number's low byte].

    Before item ``hold_at`` it waits for the file ``hold_until``: what a test does meanwhile is done in mid-stream, be
    the test ever so slow.
    """

    def __init__(
        self, start: int, count: int, nbytes: int, pause: float, fail_at: int, hold_at: int, hold_until: str
    ) -> None:
        self.range = range(start, start + count)
        self.nbytes, self.pause, self.fail_at = nbytes, pause, fail_at
        self.hold_at, self.hold_until = hold_at, Path(hold_until)

    def __len__(self) -> int:
        return len(self.range)

    def __iter__(self) -> Iterator[list[Any]]:
        for position, number in enumerate(self.range):
            if position == self.fail_at:
                raise ValueError(f"item {position} is rotten")
            while position == self.hold_at and not self.hold_until.exists():
                time.sleep(0.01)
            if self.pause:
                time.sleep(self.pause)
            yield [number, np.full(self.nbytes, number % 256, dtype=np.uint8)]


class Asleep(DataFlow):
    """Says so, and sleeps, whatever signals come."""

    def __iter__(self) -> Iterator[list[Any]]:
        print("asleep", flush=True)
        time.sleep(3600)
        yield []


def asleep() -> Asleep:
    return Asleep()


def numbers(
    start: int = 0,
    count: int = 100,
    nbytes: int = 1000,
    pause: float = 0.0,
    fail_at: int = -1,
    hold_at: int = -1,
    hold_until: str = "",
) -> Numbers:
    return Numbers(start, count, nbytes, pause, fail_at, hold_at, hold_until)


def batches(nbytes: int = 38_535_168) -> DataFlow:
    """The same large batch for ever."""
    return DataFromList([[np.zeros(nbytes, np.uint8), np.arange(64)]] * 100, shuffle=False)


def pictures(count: int = 400) -> DataFlow:
    """Small pictures, each of its own number."""
    return DataFromList([[np.full((256, 256), n % 256, np.uint8), n] for n in range(count)], shuffle=False)


def unpicture(folder: str) -> list[Any]:
    """A factory that fails while it is called."""
    raise OSError(f"{folder} is not mounted")


def say(line: str) -> None:
    """Write a line at once, so that none of another process comes between it and its end, as with print()."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def consume() -> None:
    """Write each number that arrives, and how it ended, as lines of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--group", default="default")
    parser.add_argument("--bind", action="store_true")
    parser.add_argument("--min-producers", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--stop-after", type=int, default=-1)
    parser.add_argument("--hang-after", type=int, default=-1)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--queue-bytes", type=int, default=1 << 30)
    parser.add_argument("--hwm", type=int, default=50)
    options = parser.parse_args()
    source = RemoteDataZMQ(
        options.addresses,
        bind=options.bind,
        group=options.group,
        min_producers=options.min_producers,
        timeout=options.timeout,
        queue_bytes=options.queue_bytes,
        hwm=options.hwm,
    )
    with source:
        source.reset_state()
        say("ready")
        try:
            read(source, options)
        except Exception as error:
            say(json.dumps({"error": type(error).__name__, "text": str(error)}))
            sys.exit(3)
        say(json.dumps({"end": "clean", "in_doubt": source.in_doubt, "errors": source.errors}))


def read(source: RemoteDataZMQ, options: argparse.Namespace) -> None:
    for position, (number, array) in enumerate(source, 1):
        assert (array == number % 256).all(), f"{number} arrived damaged"
        say(f"[{number}]")
        if position == options.hang_after:
            say("holding")
            time.sleep(3600)
        if position == options.stop_after:
            return
        time.sleep(options.pause)


if __name__ == "__main__":
    consume()
