"""Owns the report of an epoch: what became of every item, and what the cluster did twice or in vain."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class EpochReport:
    """Counts of one epoch; ``items`` = ``delivered`` + ``filtered`` + ``quarantined`` + ``dropped`` + ``earlier``.

    Attributes:
        epoch: its number.
        items: of the source.
        earlier: items that were passed over because the epoch was resumed after them.
        delivered: items of which at least one output was claimed by a rank.
        filtered: items that gave nothing.
        quarantined: items that were given up.
        dropped: items all of whose outputs lay in the last, incomplete row (``even="drop"``).
        datapoints: outputs that have numbers.
        padding: datapoints that were handed out again to complete the last row (``even="pad"``).
        in_doubt: datapoints of blocks that were claimed by a consumer which did not live to say that it used them.
        expired: leases that ended because their worker did nothing for too long.
        redelivered: splits that were made again because their worker or its lease was lost.
        fenced: blocks that came after their lease had ended.
    """

    epoch: int
    items: int
    earlier: int = 0
    delivered: int = 0
    filtered: int = 0
    quarantined: int = 0
    dropped: int = 0
    datapoints: int = 0
    padding: int = 0
    in_doubt: int = 0
    expired: int = 0
    redelivered: int = 0
    fenced: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)
