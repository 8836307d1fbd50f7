"""Owns the pipelines and the trainer that the tests of epochs mode run in processes of their own."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfserve import RemoteDataZMQ
from dfserve.dataflow import BatchData, DataFlow, MapData, ProxyDataFlow


class Items(DataFlow):
    """``n`` items [number, array of ``nbytes`` bytes filled with the number's low byte]."""

    def __init__(self, n: int, nbytes: int) -> None:
        self.n, self.nbytes = n, nbytes

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> list[Any]:
        return [index, np.full(self.nbytes, index % 256, np.uint8)]

    def __iter__(self) -> Iterator[list[Any]]:
        return (self[index] for index in range(self.n))


class Several(ProxyDataFlow):
    """Each item 0, 1 or 2 times, by its number: [number, which, a random number, array]."""

    def __iter__(self) -> Iterator[list[Any]]:
        for number, array in self.ds:
            for which in range(outputs_of(number)):
                yield [number, which, np.random.random(), array]  # the user's way to draw


class Work:
    """Takes ``pause`` seconds for an item; raises at every ``bad``-th, dies at the number ``poison``."""

    def __init__(self, pause: float, bad: int, poison: int, keep_from: int) -> None:
        self.pause, self.bad, self.poison, self.keep_from = pause, bad, poison, keep_from

    def __call__(self, item: list[Any]) -> list[Any] | None:
        number = item[0]
        if self.pause:
            time.sleep(self.pause)
        if number == self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if is_bad(number, self.bad):
            raise ValueError(f"item {number} is rotten")
        return item if number >= self.keep_from else None


def outputs_of(number: int) -> int:
    """How often `Several` yields an item."""
    return 0 if number % 7 == 3 else 2 if number % 5 == 1 else 1


def is_bad(number: int, bad: int) -> bool:
    return bool(bad) and number % bad == bad - 1


def items(
    n: int = 100,
    nbytes: int = 100,
    pause: float = 0.0,
    bad: int = 0,
    poison: int = -1,
    keep_from: int = 0,
    batch: int = 0,
    remainder: bool = False,
) -> DataFlow:
    ds = Several(MapData(Items(n, nbytes), Work(pause, bad, poison, keep_from)))
    return BatchData(ds, batch, remainder) if batch else ds


def train() -> None:
    """Be a rank: write (number, which, random number) of each datapoint, and each epoch's end, as lines of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--options", type=json.loads, default={}, help="keyword arguments of RemoteDataZMQ")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--load", type=Path, help="a state to begin with")
    parser.add_argument("--save", type=Path, help="where to write the state")
    parser.add_argument("--save-after", type=int, default=-1, help="steps")
    parser.add_argument("--hold-after", type=int, default=-1, help="steps")
    parser.add_argument("--stop-at", type=int, default=-1, help="steps, after which it stops itself with SIGSTOP")
    parser.add_argument("--await-reports", action="store_true", help="longer than the second that `report` waits")
    options = parser.parse_args()
    with RemoteDataZMQ(options.address, bind=False, mode="epochs", timeout=60, **options.options) as source:
        if options.load:
            source.load_state_dict(json.loads(options.load.read_text()))
        steps = 0
        for _ in range(options.epochs):
            count = 0
            for step in source:
                count, steps = count + 1, steps + 1
                say("\n".join(json.dumps(row) for row in checked(step)))
                if steps == options.save_after:
                    write_whole(options.save, source.state_dict())
                if steps == options.hold_after:
                    say("holding")
                    time.sleep(3600)
                if steps == options.stop_at:
                    os.kill(os.getpid(), signal.SIGSTOP)
                if options.pause:
                    time.sleep(options.pause)
            while options.await_reports and source.report is None:
                pass
            say(json.dumps({"count": count, "len": len(source), "errors": source.errors, "report": source.report}))
        say("done")


def say(lines: str) -> None:
    """Write lines at once, so that none of another process comes between, as with print()."""
    sys.stdout.write(lines + "\n")
    sys.stdout.flush()


def checked(step: list[Any]) -> list[list[Any]]:
    """Return what is known of each datapoint of a step, a datapoint or a batch: all but the array, which is checked."""
    number, which, drawn, array = step
    assert (number % 256 == array.T).all(), f"{number} arrived damaged"
    if np.ndim(number):
        return [list(row) for row in zip(number.tolist(), which.tolist(), drawn.tolist(), strict=True)]
    return [[number, which, drawn]]


def write_whole(path: Path, state: dict[str, Any]) -> None:
    half = path.with_suffix(".half")
    half.write_text(json.dumps(state))
    half.rename(path)


if __name__ == "__main__":
    train()
