"""Owns the invariants of the epochs protocol, as they are checked in a simulated world."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from epochs_peers import Broken, SimRank

from dfserve.epochs.rows import Rows
from dfserve.wire import epoch_messages as e

if TYPE_CHECKING:
    from epochs_world import World

    _Base = World
else:
    _Base = object


class Checks(_Base):
    """What must hold in a world, whose fields these are."""

    def check(self) -> None:
        """Look whether the invariants hold that can be seen at any time."""
        budget, production = self.job.production.budget, self.job.production
        charged = sum(leased.charge for _, leased in production.lessees.out())
        held = sum(made.nbytes for ledger in self.job.epochs.values() for made in (*ledger.held(), *ledger.freed))
        if not 0 <= budget.used <= budget.total or budget.used != charged + held:
            raise Broken(f"7: {budget.used} of {budget.total} bytes are charged; leases {charged}, blocks {held}")
        for rank in self.ranks:
            if rank.refused and not self._over:
                raise Broken(f"12: {rank.name} was refused: {rank.refused}")

    @property
    def _over(self) -> bool:
        """Whether a broker without a ledger died, which ends the run; whoever reads that begins another."""
        return not self.scenario.ledger and any("run is over" in rank.refused for rank in self.ranks)

    def _check_delivery(self, rank: SimRank, message: e.Portion) -> None:
        key = (message.generation, rank.rank, message.epoch, message.split, message.padding)
        if key in self.confirmed:
            raise Broken(f"3: split {message.split} of epoch {message.epoch} is claimed and delivered again")

    def _check_handed(self, before: dict[bytes, int]) -> None:
        for rank in self.everybody():
            if not isinstance(rank, SimRank):
                continue
            for block in rank.waiting:
                message = block.message
                if block.number <= rank.confirmed and isinstance(message, e.Portion):
                    self._is_durable(rank, message.epoch, message.split, message.padding)
            for epoch, number, padding, datapoint in rank.handed[before.get(rank.session, len(rank.handed)) :]:
                self._check_durable(rank, epoch, rank.split_of(datapoint), padding)
                sequence = self.scenario.sequence(epoch, rank.plan.seed)
                if self.scenario.order == "strict" and sequence[number] != datapoint:
                    raise Broken(f"10: output {number} of epoch {epoch} is {datapoint!r}")
                same = [r for r in self.everybody() if isinstance(r, SimRank) and r.generation == rank.generation]
                had = sum(each == (epoch, number, padding, datapoint) for r in same for each in r.handed)
                twice = sum(each[0] == epoch and each[2] == padding and each[3] == datapoint for each in rank.handed)
                if not padding and (had != 1 or twice != 1):
                    raise Broken(f"1: {datapoint!r}, output {number} of epoch {epoch}, is handed out twice")

    def _check_durable(self, rank: SimRank, epoch: int, split: int, padding: bool) -> None:
        if not self._is_durable(rank, epoch, split, padding):
            raise Broken(f"2: {rank.name} hands out of split {split}, whose claim is not durable")

    def _is_durable(self, rank: SimRank, epoch: int, split: int, padding: bool) -> bool:
        key = (rank.generation, rank.rank, epoch, split, padding)
        if not self.scenario.ledger or key in self.confirmed:
            return True
        record = self.disk.durable
        if record is None or record["generation"] != rank.generation.hex():
            return False
        fields = record["epochs"].get(str(epoch))
        claimant = rank.rank + self.scenario.world * padding
        found = fields is None or (
            split < fields["low"]
            or any(first <= split < last for first, last in fields["done"])
            or any(number == split and claimant in claimed for number, _, _, claimed in fields["placed"])
        )
        if found:
            self.confirmed.add(key)
        return found

    @property
    def done(self) -> bool:
        return all(rank.ended and not rank.goodbye for rank in self.ranks)

    def check_end(self) -> None:
        """Look whether every datapoint was handed out as often as it should be."""
        for epoch in range(self.scenario.epochs):
            if self.scenario.order == "strict" and not self.resumed:
                self._check_rows(epoch)
            else:
                self._check_all(epoch)
        self._check_report()

    def _check_rows(self, epoch: int) -> None:
        rows, even = self.scenario.plan.rows, self.scenario.even
        sequence = self.scenario.sequence(epoch, self.seed)
        for rank in self.ranks:
            got = [each[3] for each in rank.handed if each[0] == epoch]
            if got != (wanted := share(sequence, rows, rank.rank, even)):
                raise Broken(f"10: {rank.name} got {got} in epoch {epoch}, not {wanted}")

    def _check_all(self, epoch: int) -> None:
        rows = self.scenario.plan.rows
        sequence = self.scenario.sequence(epoch, self.seed)
        counts = [len([each for each in rank.handed if each[0] == epoch]) for rank in self.ranks]
        got = Counter(each[3] for rank in self.ranks for each in rank.handed if each[0] == epoch and not each[2])
        missing = Counter(sequence) - got
        dropped = rows.dropped(len(sequence)) if self.scenario.even == "drop" else 0
        doubtful = self._in_doubt() if self.resumed else set()
        if got - Counter(sequence) or sum((missing - Counter(list(doubtful))).values()) != dropped:
            raise Broken(f"1: epoch {epoch} gave {got}, of {sequence}")
        if not self.resumed and set(counts) != {rows.share(len(sequence), self.scenario.even)}:
            raise Broken(f"9: the ranks got {counts} datapoints in epoch {epoch}")

    def _in_doubt(self) -> set[str]:
        """Return what ranks that are gone had claimed, whether they handed it out or not."""
        found = {each[3] for old in self.gone for each in old.handed}
        for old in self.gone:
            found |= self.sent.get(old.session, set())
        for old in self.gone:
            found |= {datapoint for _, datapoint in old.ready}
            for block in old.waiting:
                if isinstance(block.message, e.Portion) and block.number <= old.claimed:
                    found |= set(block.frames[0].decode().split())
        return found

    def _check_report(self) -> None:
        for rank in self.ranks:
            if not rank.report:
                continue
            report = json.loads(rank.report)
            parts = [report[name] for name in ("delivered", "filtered", "quarantined", "dropped", "earlier")]
            if sum(parts) != report["items"] or min(parts) < 0:
                raise Broken(f"6: {report}")


def share(sequence: list[str], rows: Rows, rank: int, even: str) -> list[str]:
    """Return a rank's rows of an epoch."""
    total = len(sequence)
    if rows.world == 1:
        return sequence
    whole = rows.ready(total) if even == "drop" else total
    mine = [sequence[g] for g in range(whole) if g // rows.stride % rows.world == rank]
    return mine + ([sequence[g] for g in rows.padding(rank, total)] if even == "pad" else [])
