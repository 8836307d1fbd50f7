"""Owns what workers share with their supervisor, counters and whereabouts: memory that both sides of a fork see."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

FIELDS = ("datapoints", "nbytes", "blocked_seconds", "passes", "restarts")
PLACE = 3  # more of them: position of the item that the worker is at, below 0 for none; its pipeline and epoch
NOWHERE = -1
WIDTH = len(FIELDS) + PLACE  # of one slot: doubles, exact for counts up to 2**53


@dataclass
class Counters:
    """One worker slot's counters, over all of its incarnations."""

    datapoints: float = 0
    nbytes: float = 0
    blocked_seconds: float = 0
    passes: float = 0
    restarts: float = 0


class Board:
    """What is known of a number of worker slots. Made before the fork; each slot has one writer at a time."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, 8 * WIDTH * slots)
        self._numbers = memoryview(self._map).cast("d")
        for slot in range(slots):
            self.note(slot, 0, 0)

    def read(self, slot: int) -> Counters:
        """Return a slot's counters."""
        start = slot * WIDTH
        return Counters(*self._numbers[start : start + len(FIELDS)])

    def write(self, slot: int, counters: Counters) -> None:
        """Set a slot's counters."""
        for place, name in enumerate(FIELDS, slot * WIDTH):
            self._numbers[place] = getattr(counters, name)

    def note(self, slot: int, pipeline: int, epoch: int) -> Callable[[int], object]:
        """Return what says which position of a split the slot's worker begins, in one write; below 0: none."""
        numbers, place = self._numbers, slot * WIDTH + len(FIELDS)
        numbers[place] = NOWHERE  # so that a death between these writes is not taken for one at another item
        numbers[place + 1] = pipeline
        numbers[place + 2] = epoch
        return partial(numbers.__setitem__, place)

    def place(self, slot: int) -> tuple[int, int, int] | None:
        """Return the pipeline's number, the epoch and the position of the item that the slot's worker is at, if any."""
        start = slot * WIDTH + len(FIELDS)
        position, pipeline, epoch = map(int, self._numbers[start : start + PLACE])
        return (pipeline, epoch, position) if position >= 0 else None
