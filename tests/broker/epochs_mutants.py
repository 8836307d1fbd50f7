"""Owns broken brokers, which a search must notice."""

from __future__ import annotations

from typing import Any

from epochs_compared import Compared
from epochs_merged import Merged
from epochs_world import World

from dfserve.broker.budget import charge_of
from dfserve.broker.epochs_job import EpochsJob
from dfserve.broker.ledger import Stage
from dfserve.broker.lessees import Leased
from dfserve.broker.production import Production


class UnfencedWorld(World):
    """Takes a block for whose lease nobody waits any more."""

    def _hear_answer(self, worker: Any, message: Any, frames: Any) -> None:
        production = self.job.production
        lessee = production.lessees.workers.get(worker.session)
        ledger = self.job.epochs.get(message.epoch)
        split = None if ledger is None else ledger.open.get(message.split)
        if lessee is None or message.lease in lessee.leases or split is None or not production.budget.fits(70_000):
            super()._hear_answer(worker, message, frames)
            return
        charge = charge_of(production.slot)
        production.budget.take(charge)
        lessee.leases[message.lease] = Leased(message.lease, message.epoch, message.split, charge, 1, self.time)
        split.lease = message.lease
        split.stage = Stage.LEASED
        production.made(worker.session, message, frames, self.time)


class Hasty(EpochsJob):
    """Confirms before the disk has it."""

    def _commit(self) -> None:
        super()._commit()
        self.saved(1 << 60)


class ConfirmingWorld(World):
    job_class = Hasty


class CountingWorld(World):
    """Has no ledger, and counts what it should draw, from one in each broker."""

    def _broker(self) -> Any:
        self.counted = 0
        return super()._broker()

    def draw(self, count: int) -> bytes:
        self.counted += 1
        return bytes([self.counted]).rjust(count, b"\0")


class UnreservedWorld(World):
    """Leases whatever fits, and takes nothing back for the earliest split."""

    def _broker(self) -> Any:
        job = super()._broker()
        job.production.__class__ = Greedy
        return job


class Greedy(Production):
    """Keeps no room for the earliest split."""

    def _has_room(self, _ledger: Any, _epoch: int) -> bool:
        return bool(self.budget.fits(self._charge()))


class Unfenced(Merged, UnfencedWorld):
    """The same in fewer steps."""


class UnfencedWhole(Compared, UnfencedWorld):
    """The same in all steps."""


class Confirming(Merged, ConfirmingWorld):
    """The same in fewer steps."""


class ConfirmingWhole(Compared, ConfirmingWorld):
    """The same in all steps."""


class CountingWhole(Compared, CountingWorld):
    """The same in all steps."""


class Unreserved(Merged, UnreservedWorld):
    """The same in fewer steps."""


class UnreservedWhole(Compared, UnreservedWorld):
    """The same in all steps."""
