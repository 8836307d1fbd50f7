"""Owns the report of an epoch: what became of every item, and what the cluster did twice or in vain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dfserve.broker.ledger import Ledger

OUTCOMES = ("delivered", "filtered", "quarantined", "dropped")


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
        text: all of it as JSON, once it is filled in.
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
    text = ""  # no field

    def fill(self, ledger: Ledger, counts: Mapping[str, int]) -> None:
        """Fill in what became of the items of an epoch that is complete; ``counts``: of what was done in vain."""
        self.filtered, self.quarantined, self.dropped = ledger.filtered, ledger.quarantined, ledger.dropped
        self.earlier = self.items - ledger.items
        self.delivered = self.items - self.earlier - ledger.filtered - ledger.quarantined - ledger.dropped
        self.datapoints = max(0, ledger.total)
        if ledger.even == "pad":
            self.padding = -self.datapoints % ledger.rows.size
        for name in ("expired", "redelivered", "fenced"):
            setattr(self, name, counts.get(name, 0))
        self.text = json.dumps(asdict(self))
