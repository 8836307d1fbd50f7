"""Owns the training steps that batches are fetched between, and the sides that have them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH = 64  # datapoints: a common batch of images
STEP = 0.02  # seconds of a step
VECTOR = 1 << 16  # float64 numbers that a NumPy step works on at a time: long enough for NumPy to release the GIL


def nothing() -> None:
    """Be a step that takes no time."""


def holding() -> None:
    """Hold the GIL for the time of a step, as Python code does."""
    end = time.perf_counter() + STEP
    while time.perf_counter() < end:
        pass


_NUMBERS = np.ones(VECTOR)


def releasing() -> None:
    """Compute for the time of a step without the GIL, as extensions do."""
    end = time.perf_counter() + STEP
    while time.perf_counter() < end:
        np.sqrt(_NUMBERS, out=_NUMBERS)


def begin_busy_thread() -> None:
    """Begin a second Python thread that never lets go of the GIL by itself, as a callback that computes."""
    threading.Thread(target=_spin, daemon=True).start()


def _spin() -> None:
    while True:
        pass


@dataclass(frozen=True)
class Side:
    """One way to take data.

    Attributes:
        title: as the table shows it.
        batch: datapoints of a `BatchData` over `RemoteDataZMQ`; 0: none.
        options: of `RemoteDataZMQ`.
        step: what the trainer does between two batches.
        begin: what it does before the first.
    """

    title: str
    batch: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    step: Callable[[], None] = nothing
    begin: Callable[[], None] = nothing


SIDES = {
    "datapoints": Side("datapoints"),
    "batches": Side("BatchData(64)", BATCH),
    "epochs": Side("epochs, batch_size=64", options=(("mode", "epochs"), ("batch_size", BATCH))),
    "holding": Side("BatchData(64), a step of 20 ms holds the GIL", BATCH, step=holding),
    "releasing": Side("BatchData(64), a step of 20 ms releases it", BATCH, step=releasing),
    "epochs_holding": Side(
        "epochs, batch_size=64, a step of 20 ms holds the GIL",
        options=(("mode", "epochs"), ("batch_size", BATCH)),
        step=holding,
    ),
    "thread": Side(
        "BatchData(64), a step of 20 ms, beside a busy thread", BATCH, step=releasing, begin=begin_busy_thread
    ),
}
