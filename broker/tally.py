"""Owns the broker's counters, by label, as plain numbers; the metrics are read from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ProducerTally:
    """What one producer name has sent, over all of its incarnations."""

    datapoints: int = 0
    nbytes: int = 0
    on_wire: int = 0  # bytes that those of the blocks took on the network: fewer if they were compressed
    blocked_seconds: float = 0.0
    last_seen: float = 0.0  # wall clock, seconds since the epoch
    restarts: int = 0


@dataclass
class GroupTally:
    """What one group's consumers have handed out."""

    datapoints: int = 0
    nbytes: int = 0
    waited_seconds: float = 0.0
    skipped: int = 0  # datapoints that lag="skip", or a group without consumers, let go
    last_seen: float = 0.0  # wall clock, seconds since the epoch


@dataclass
class Tally:
    """All counters of one broker."""

    producers: dict[str, ProducerTally] = field(default_factory=dict)
    groups: dict[str, GroupTally] = field(default_factory=dict)
    redelivered: int = 0  # blocks
    in_doubt: int = 0  # datapoints of redelivered blocks: a consumer that died may have seen them
    duplicate: int = 0  # blocks
    uncertain: int = 0  # blocks that an earlier broker had taken and may have lost
    expired: int = 0  # leases of splits whose worker did nothing for too long
    fenced: int = 0  # blocks that came after their lease had ended
    quarantined: int = 0  # items that were given up in epochs mode
    epoch_items: Counter[str] = field(default_factory=Counter)  # items of epochs that are complete, by outcome
    bad: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # connections, by reason

    def producer(self, name: str) -> ProducerTally:
        """Return the counters of a producer, made when first asked for."""
        return self.producers.setdefault(name, ProducerTally())

    def group(self, name: str) -> GroupTally:
        """Return the counters of a group, made when first asked for."""
        return self.groups.setdefault(name, GroupTally())

    def forget(self, before: float, live_producers: set[str], live_groups: set[str]) -> None:
        """Drop the labels of what is gone and was last seen before a time."""
        for name in [n for n, t in self.producers.items() if n not in live_producers and t.last_seen < before]:
            del self.producers[name]
        for name in [n for n, t in self.groups.items() if n not in live_groups and t.last_seen < before]:
            del self.groups[name]
