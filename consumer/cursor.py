"""Owns the place in the block that is being handed out, one datapoint at a time or many. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

NO_ROWS: tuple[Any, ...] = ()


class Cursor:
    """What is left of one block.

    Attributes:
        unfolded: the datapoints that were made out of it and not handed out: a list's iterator, which is shared by all
            who iterate. What they take of it is handed out.
    """

    def __init__(self, rows: Sequence[Any] = NO_ROWS) -> None:
        self._folded = rows  # of which nothing was handed out, and no datapoint made
        self._whole: Sequence[Any] = NO_ROWS  # what `unfolded` was made of
        self.unfolded: Iterator[Any] = iter(NO_ROWS)

    @property
    def left(self) -> int:
        """How many datapoints were not handed out."""
        return len(self._folded) + self._made()

    def _made(self) -> int:
        length: int = self.unfolded.__length_hint__()  # type: ignore[attr-defined]  # list and tuple iterators have it
        return length

    def unfold(self) -> bool:
        """Make datapoints of what is left, if those that were made are handed out. False: there is nothing left."""
        if not self._made():
            whole, made = self._folded, iter(self._folded)  # of many; nothing is lost if an interrupt comes meanwhile
            self._whole, self._folded, self.unfolded = whole, NO_ROWS, made
        return self._made() > 0

    def take(self, most: int) -> Sequence[Any]:
        """Hand out at most ``most`` datapoints together, as a slice of the block; empty: there is nothing left."""
        if made := self._made():
            self._folded = self._whole[-made:]
            deque(self.unfolded, maxlen=0)  # whoever still iterates over them must not have them too
        self._whole = NO_ROWS
        run = self._folded[:most]
        self._folded = self._folded[len(run) :] if len(run) < len(self._folded) else NO_ROWS
        return run
