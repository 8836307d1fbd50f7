"""Owns what waits for the disk: claims that are to be confirmed, generations told of, goodbyes answered. Pure.

One record at a time is written; what changes meanwhile goes with the next, so that under load many claims share one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from dfserve.broker.seats import Seat

Save = Callable[[dict[str, Any]], int]


class Commits:
    """The records of one job.

    Args:
        save: makes a record durable some time later, returns its number; None: there is no disk, and nothing waits.

    Attributes:
        due: something changed that no record holds.
    """

    def __init__(self, save: Save | None) -> None:
        self.due = False
        self._save = save
        self._writing = 0  # the record that is on its way to the disk; 0: none
        self._claims: deque[tuple[int, Seat, int]] = deque()  # (record, seat, delivery) that are not durable yet
        self._parting: list[Seat] = []  # said goodbye, and no record holds that yet
        self._parted: deque[tuple[int, Seat]] = deque()  # (record, seat) whose goodbye is not durable yet

    @property
    def ledger(self) -> bool:
        """Whether there is a disk."""
        return self._save is not None

    @property
    def settled(self) -> bool:
        """Whether all claims that a record holds are durable."""
        return not self._claims

    @property
    def idle(self) -> bool:
        """Whether the disk has everything, goodbyes too, and nobody waits for it."""
        return not (self.due or self._writing or self._claims or self._parting or self._parted)

    def part(self, seat: Seat) -> None:
        """Note a goodbye, which `saved` will return when it is durable."""
        self._parting.append(seat)
        self.due = True

    def commit(self, record: Callable[[], dict[str, Any]], members: Iterable[Seat]) -> None:
        """Hand what has changed to the disk unless that is busy, and note who waits for it."""
        if not self.due or self._writing:
            return
        self.due = False
        number = self._writing = 0 if self._save is None else self._save(record())
        for seat in members:
            if seat.claimed > seat.confirmed or not seat.durable:
                self._claims.append((number, seat, seat.claimed))
        self._parted.extend((number, seat) for seat in self._parting)
        self._parting.clear()

    def saved(self, number: int) -> list[Seat]:
        """Confirm what the records up to ``number`` hold. Returns whose goodbyes those are."""
        if self._writing <= number:
            self._writing = 0
        while self._claims and self._claims[0][0] <= number:
            _, seat, claimed = self._claims.popleft()
            seat.durable = True
            seat.confirmed = max(seat.confirmed, claimed)
        parted = []
        while self._parted and self._parted[0][0] <= number:
            parted.append(self._parted.popleft()[1])
        return parted

    def forget(self) -> list[Seat]:
        """Forget who waits: their generation is over. Returns those that said goodbye."""
        waiting = [*self._parting, *(seat for _, seat in self._parted)]
        self._claims.clear()
        self._parting.clear()
        self._parted.clear()
        return waiting
