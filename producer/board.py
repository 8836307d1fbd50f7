"""Owns the counters that workers share with their supervisor: a small map of memory that both sides of a fork see."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

FIELDS = ("datapoints", "nbytes", "blocked_seconds", "passes", "restarts")
WIDTH = 8 * len(FIELDS)  # bytes of one slot: doubles, exact for counts up to 2**53


@dataclass
class Counters:
    """One worker slot's counters, over all of its incarnations."""

    datapoints: float = 0
    nbytes: float = 0
    blocked_seconds: float = 0
    passes: float = 0
    restarts: float = 0


class Board:
    """Counters of a number of worker slots. Made before the fork; each slot has one writer at a time."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, WIDTH * slots)
        self._numbers = memoryview(self._map).cast("d")

    def read(self, slot: int) -> Counters:
        """Return a slot's counters."""
        start = slot * len(FIELDS)
        return Counters(*self._numbers[start : start + len(FIELDS)])

    def write(self, slot: int, counters: Counters) -> None:
        """Set a slot's counters."""
        for place, name in enumerate(FIELDS, slot * len(FIELDS)):
            self._numbers[place] = getattr(counters, name)
