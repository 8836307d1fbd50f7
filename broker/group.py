"""Owns what the broker knows of a group: the blocks it has not had, its consumers and what each of them holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dfserve.broker.intake import Worker
from dfserve.window import Window
from dfserve.wire.messages import Fail


@dataclass(eq=False)
class Entry:
    """A block, or a pipeline's exception, that groups have yet to consume. ``frames`` are never looked into."""

    worker: Worker
    frames: Sequence[Any]
    count: int  # datapoints
    nbytes: int
    charge: int
    failure: Fail | None = None
    holders: set[Group] = field(default_factory=set)

    @property
    def dropped(self) -> bool:
        """Whether it was let go while it still lay in a group's queue."""
        return not self.holders


@dataclass(eq=False)
class Parcel:
    """An entry on its way through one group. ``skip`` datapoints of it were handed out by a consumer that left."""

    entry: Entry
    skip: int = 0
    again: bool = False

    @property
    def count(self) -> int:
        """Datapoints that are left to hand out."""
        return self.entry.count - self.skip


@dataclass(frozen=True)
class End:
    """An end of the stream: how many workers finished cleanly, and which did not, with the reason."""

    finished: int
    broken: list[str]


@dataclass(eq=False)
class Consumer:
    """One consumer's session. ``unacked`` holds what was sent to it, by the number of the delivery."""

    session: bytes
    name: str
    window: Window
    sent: int = 0
    done: int = 0
    unacked: deque[tuple[int, Parcel | End]] = field(default_factory=deque)
    datapoints: int = 0
    nbytes: int = 0
    waited: float = 0.0
    suspect_since: float | None = None

    @property
    def connected(self) -> bool:
        """Whether messages reach it, as far as is known."""
        return self.suspect_since is None

    def has_room(self, share: int) -> bool:
        """Tell whether one more block may be sent to it: one always, more within its window and its share in bytes.

        All consumers' shares are half of the budget, so that those that have stopped cannot hold all of it.
        """
        if not self.connected or not self.unacked:
            return self.connected
        return self.nbytes < share and self.window.has_room(len(self.unacked), self.datapoints, self.nbytes)

    def push(self, parcel: Parcel | End) -> int:
        """Note that something is sent to it; returns the delivery's number."""
        self.sent += 1
        self.unacked.append((self.sent, parcel))
        self._weigh(parcel, 1)
        return self.sent

    def pop(self) -> Parcel | End:
        """Take the oldest delivery off it."""
        _, parcel = self.unacked.popleft()
        self._weigh(parcel, -1)
        return parcel

    def _weigh(self, parcel: Parcel | End, sign: int) -> None:
        if isinstance(parcel, Parcel):
            self.datapoints += sign * parcel.count
            self.nbytes += sign * parcel.entry.nbytes


@dataclass(eq=False)
class Group:
    """Consumers that share one pass over the data."""

    name: str
    lag: str
    min_producers: int
    pending: deque[Parcel] = field(default_factory=deque)
    consumers: dict[bytes, Consumer] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)  # sessions of ended workers that an earlier end spoke of
    end_at: float | None = None  # when to stop waiting for what its consumers hold
    deserted_at: float = 0.0  # when its last consumer left
    last_end: End | None = None  # for those of its consumers that come after it

    @property
    def connected(self) -> bool:
        """Whether any of its consumers is reachable."""
        return any(consumer.connected for consumer in self.consumers.values())

    def hungriest(self, share: int) -> Consumer | None:
        """Return the consumer that holds least among those with room, each within a share of the budget in bytes."""
        ready = [consumer for consumer in self.consumers.values() if consumer.has_room(share)]
        return min(ready, key=lambda c: (len(c.unacked), c.nbytes, c.sent), default=None)

    def next_parcel(self) -> Parcel | None:
        """Take the oldest parcel off the queue that was not dropped meanwhile."""
        while self.pending:
            parcel = self.pending.popleft()
            if not parcel.entry.dropped:
                return parcel
        return None

    def take_back(self, consumer: Consumer, *, again: bool) -> list[Parcel]:
        """Put what a consumer holds in front of the queue, in order, and forget the consumer."""
        parcels = [parcel for _, parcel in consumer.unacked if isinstance(parcel, Parcel)]
        for parcel in reversed(parcels):
            parcel.again |= again
            self.pending.appendleft(parcel)
        consumer.unacked.clear()
        self.consumers.pop(consumer.session, None)
        if not self.consumers:
            self.last_end = None
        return parcels

    def queued(self) -> int:
        """Count the datapoints that wait to be sent to a consumer."""
        return sum(
            parcel.count for parcel in list(self.pending) if not parcel.entry.dropped
        )  # list(): see metrics_values
