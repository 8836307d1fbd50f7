"""Owns the workers of a job in epochs mode: what each said of its source, what it was leased, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfserve.wire.epoch_messages import Source

AHEAD_BYTES = 16 << 20  # that one worker may have been leased: what it makes while a receipt is on its way
AHEAD_LEAST, AHEAD_MOST = 2, 16  # leases of one worker, whatever their bytes


@dataclass(eq=False)
class Leased:
    """A lease that is out."""

    number: int
    epoch: int
    split: int
    charge: int
    attempt: int
    since: float
    skip: tuple[int, ...] = ()  # positions that were given up when it was granted
    revoked: bool = False


@dataclass(eq=False)
class Lessee:
    """A worker.

    Attributes:
        source: what it said of its pipeline; None until then.
        leases: that it holds, by number.
        hangs: its leases expired, and it has not shown since that it makes anything: it is leased no more.
        leaves: it gave leases back that nobody had asked for: it was told to stop.
        items: that it has begun, as it last said.
        progress: the broker's clock when it last did something, or got its first lease.
    """

    session: bytes
    name: str
    host: str
    connected: bool = True
    source: Source | None = None
    refused: str = ""
    hangs: bool = False
    leaves: bool = False
    leases: dict[int, Leased] = field(default_factory=dict)
    items: int = 0
    progress: float = 0.0

    @property
    def serves(self) -> bool:
        """Whether it may be leased splits."""
        willing = not (self.refused or self.hangs or self.leaves)
        return self.connected and self.source is not None and willing

    def has_room(self, slot: int) -> bool:
        """Whether it may be leased one more split, of ``slot`` bytes."""
        count = len(self.leases)
        most = max(AHEAD_LEAST, min(AHEAD_MOST, AHEAD_BYTES // max(1, slot)))
        return self.serves and count < most

    def late(self, now: float, lease_time: float) -> bool:
        """Whether it has held a lease for too long without beginning an item; later attempts have more time."""
        if not self.leases:
            return False
        attempt = max(leased.attempt for leased in self.leases.values())
        patience: float = lease_time * 2 ** min(attempt - 1, 10)
        return now - self.progress > patience


class Lessees:
    """All workers of a job, and all leases that are out."""

    def __init__(self) -> None:
        self.workers: dict[bytes, Lessee] = {}

    @property
    def here(self) -> list[Lessee]:
        """Those that are connected."""
        return [worker for worker in self.workers.values() if worker.connected]

    def idlest(self, slot: int) -> Lessee | None:
        """Return the worker with the fewest leases among those that may have one more."""
        ready = [worker for worker in self.workers.values() if worker.has_room(slot)]
        return min(ready, key=lambda worker: len(worker.leases), default=None)

    def out(self) -> Iterator[tuple[Lessee, Leased]]:
        """Iterate over the leases that are out."""
        return ((worker, leased) for worker in self.workers.values() for leased in worker.leases.values())
