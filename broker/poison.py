"""Owns which items killed their workers: the deaths that count against each, and where the worst lie in an epoch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from dfserve.epochs.order import Order

STRIKES = 3  # deaths of workers at one item, after which it is given up


class Poison:
    """The items that kill, by their index: in every epoch they lie at another position."""

    def __init__(self) -> None:
        self.items: set[int] = set()  # given up
        self._strikes: dict[int, int] = {}
        self._plan = (0, 0, False)
        self._positions: dict[int, list[int]] = {}  # of the items that are given up, by epoch

    def begin(self, items: int, seed: int, shuffle: bool, given_up: Iterable[int] = ()) -> None:
        """Start over with a plan: how many items there are, and what their order comes from."""
        self._plan = (items, seed, shuffle)
        self.items = set(given_up)
        self._strikes.clear()
        self._positions.clear()

    def strike(self, epoch: int, position: int) -> int | None:
        """Count a death at a position; returns the item's index if that was one too many."""
        if not 0 <= position < self._plan[0]:
            return None
        index = self._order(epoch).index(position)
        self._strikes[index] = self._strikes.get(index, 0) + 1
        if self._strikes[index] != STRIKES:
            return None
        self.items.add(index)
        self._positions.clear()
        return index

    def within(self, epoch: int, first: int, count: int) -> tuple[int, ...]:
        """Return the positions, of ``count`` from ``first`` on, whose items are given up."""
        if not self.items:
            return ()
        if epoch not in self._positions:
            if len(self._positions) > 1:  # two epochs are under way at most
                self._positions.clear()
            self._positions[epoch] = sorted(map(self._order(epoch).position, self.items))
        positions = self._positions[epoch]
        return tuple(positions[bisect_left(positions, first) : bisect_left(positions, first + count)])

    def _order(self, epoch: int) -> Order:
        items, seed, shuffle = self._plan
        return Order(items, seed, epoch, shuffle)
