"""Owns when two simulated worlds are the same world: what their steps and futures depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochs_key import Walk
from epochs_peers import SimWorker, Step
from epochs_world import World

_Base = World if TYPE_CHECKING else object


class Compared(_Base):
    """A world with a key, and with what `Search` wants to know of a step."""

    many = single = False
    suspected: set[str] = set()  # noqa: RUF012  # none

    def alone(self, step: Step) -> bool:
        """Tell whether the step, which was just done, may be thought to come before all others that were possible."""
        return False

    # ------------------------------------------------------------------ the same world again

    def key(self) -> bytes:
        walk = Walk()
        see = walk.see
        job = self.job
        see(job)
        see(self.disk.pending)
        see(self.disk.durable)
        for rank in self.ranks:
            see(rank)
            see(self.seats.get(rank.name))
        for name, zombie in sorted(self.zombies.items()):
            if not zombie.refused:
                see(zombie)
                see(self.seats.get(name))
            elif any(each.generation == zombie.generation and not each.refused for each in self.zombies.values()):
                see([name, zombie.generation, zombie.handed])  # what others of its generation must not hand out
        for worker in self._workers_in_order(walk):
            self._see_worker(worker, walk)
        see([self.most, self.left if self.most else None, self.resumed, self.seed, self.lost, self.sent])
        if self.resumed or self.left.get("resume"):
            see(self.gone)
        durable = bytes.fromhex(self.disk.durable["generation"]) if self.disk.durable else b""
        see(sorted(each for each in self.confirmed if each[0] in (job.generation, durable)))
        return walk.digest()

    def quiet(self) -> bytes:
        """Return the hash of what ranks and the broker have; b"" if something is under way, or nothing has begun."""
        if not self.job.seats and not self.job.epochs:
            return b""
        if self.disk.pending or any(peer.up or peer.down for peer in self.everybody()):
            return b""
        if any(peer.name in self.suspected for peer in self.workers):
            return b""
        walk = Walk()
        for seat in self.job.seats.values():
            walk.see([seat.rank, seat.connected, seat.epoch, seat.durable, seat.opened, len(seat.unclaimed)])
        walk.see([self.job.epochs, self.job.production.budget.used, self.disk.durable])
        for rank in self.ranks:
            walk.see([rank.connected, rank.epoch, rank.passed, rank.handed, rank.ended, bool(rank.refused)])
            walk.see([[block.message.split, block.number <= rank.confirmed] for block in rank.waiting])
        walk.see([self.most, self.resumed, self.seed])
        return walk.digest()

    def _workers_in_order(self, walk: Walk) -> list[SimWorker]:
        """Workers are alike: they are told apart by where the broker has them, else by what they hold."""
        place = {session: number for number, session in enumerate(self.job.production.lessees.workers)}
        workers = self.workers
        if len(workers) == 1:
            return workers

        def order(worker: SimWorker) -> tuple[int, bytes]:
            number = place.get(worker.session)
            if number is not None:
                return number, b""
            own = Walk(dict(walk.names))
            self._see_worker(worker, own)
            return len(place), own.digest()

        return sorted(workers, key=order)

    def _see_worker(self, worker: SimWorker, walk: Walk) -> None:
        lessee = self.job.production.lessees.workers.get(worker.session)
        beats = None  # whether a heartbeat now shows that it has begun something since the one before
        if lessee is not None and (lessee.hangs or (self.most and self.left.get("expire"))):
            beats = worker.begun != lessee.items
        walk.see(worker.session)
        walk.see([worker.connected, worker.name in self.suspected, beats, len(worker.failed)])
        walk.see([worker.todo, worker.made, worker.down, worker.up])


class Whole(Compared, World):
    """A world in all its steps."""
