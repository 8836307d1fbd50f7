"""Owns the simulated world in fewer steps: what is said is taken in at once. `Search` goes through it.

Comments called *Sound* say why nothing that could break is lost.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any

from epochs_key import Walk, record_of
from epochs_world import Peer, Scenario, SimRank, SimWorker, Step, World

from dfserve.wire import epoch_messages as e

RANK_FAULTS = ("cut", "crash", "reload", "resume", "again", "leave")
LOSING = ("cutw", "crash")  # faults after which a worker lives on that may have missed what was said to it


class Merged(World):
    """A world in which a peer's act and the broker's taking in of what the peer said in it are one step.

    Sound: a connection is first in, first out, and a peer's act changes only the peer and what it says. If others did
    something between the act and the taking in, the act may be thought to be later, just before it: nobody could see
    it. (If the peer itself did something more in between, that is moved too: it heard only what had been said by then,
    and one step hears one message.) What this leaves out is that what was said is lost; see `_losses`.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.suspected: set[str] = set()
        self.silent = False  # nobody said anything in the last step
        super().__init__(scenario)
        for peer in self.peers.values():
            peer.cut()

    def _add_worker(self, name: str) -> None:
        self.peers[name] = SimWorker(name, self._session(), self.scenario)  # it connects in a step of its own

    # ------------------------------------------------------------------ steps

    def _can_lose(self, *kinds: str) -> bool:
        return self.most > 0 and any(self.left.get(kind) for kind in kinds)

    def steps(self) -> list[Step]:
        found: list[Step] = []
        for name, peer in [*self.peers.items(), *self.zombies.items()]:
            found += ((kind, name) for kind in self._possible(peer))
        for name, zombie in self.zombies.items():
            if zombie.connected:
                found += [("cut", name, *lost) for lost in self._losses(zombie)]
        if self._over:
            found.append(("rerun",))
        if self.disk.pending:
            found.append(("disk",))
        return found

    def _possible(self, peer: Any) -> Iterator[str]:
        if peer.name in self.suspected:
            yield "up"
        if peer.connected and peer.down:
            yield "down"
        if not peer.connected and not getattr(peer, "refused", "") and getattr(peer, "lives", 1):
            yield "connect"
        if isinstance(peer, SimWorker):
            if peer.next() is not None:
                yield "make"
            if peer.connected and peer.name not in self.suspected and self._hangs(peer):
                yield "beat"
        elif self.scenario.lazy and peer.can_hand_out():
            yield "user"

    def faults(self) -> list[Step]:
        return [self._told(step) for step in super().faults()]

    def _told(self, step: Step) -> Step:
        return step

    def step(self, step: Step) -> None:
        kind, *names = step
        self.time += 10.0
        zombie = any(name in self.zombies for name in names)
        if kind in self.left and not zombie:
            self.left[kind] -= 1
            self.most -= 1
        before = {peer.session: len(peer.handed) for peer in self.everybody() if isinstance(peer, SimRank)}
        peers = [
            (self.peers.get(name) or self.zombies[name]) if isinstance(name, str) else name for name in names
        ]
        drawn, self.silent = self.drawn, kind in ("down", "user", "make")
        getattr(self, f"_do_{kind}")(*peers)
        if not self.silent:
            self.job.pump(self.time)
        self._settle()
        self._check_handed(before)
        self.check()

    def _settle(self) -> None:
        """Let the broker take in what was said, and workers what is said to them."""
        while True:
            for peer in self.everybody():
                if peer.connected and peer.up:
                    self.silent = False
                    self.time += 10.0
                    self._do_up(peer)
                    peer.up.clear()
                    self.job.pump(self.time)
                    break
            else:
                if not any(self._hears_at_once(worker) for worker in self.workers):
                    return

    def _hears_at_once(self, worker: SimWorker) -> bool:
        """Let a worker hear what it does not answer."""
        if not worker.connected or not worker.down or self._can_lose(*LOSING):
            return False
        message, frames = worker.down[0]
        if isinstance(message, e.Lease):
            news = message.lease not in worker.made
            if not news or any(each.generation != message.generation for each in worker.todo.values()):
                return False
        elif not isinstance(message, e.Taken):
            return False
        del worker.down[0]
        worker.hear(message, frames)
        return True

    def alone(self, step: Step) -> bool:
        """Tell whether the step that was done may be taken to come before all others that were possible."""
        kind, *names = step
        return kind == "down" and self.silent and names[0] in self.peers and not self._can_lose(*RANK_FAULTS) and isinstance(self.peers[names[0]], SimRank)

    def _do_down(self, peer: Peer) -> None:
        peer.hear(*peer.down.pop(0))

    def _do_suspect(self, worker: SimWorker) -> None:
        self.job.production.worker_unreachable(worker.session)
        self.suspected.add(worker.name)

    def _do_crash(self) -> None:
        self.suspected.clear()
        super()._do_crash()

    def _do_cutw(self, worker: SimWorker) -> None:
        self.suspected.discard(worker.name)
        super()._do_cutw(worker)

    def _do_die(self, worker: SimWorker) -> None:
        self.suspected.discard(worker.name)
        super()._do_die(worker)

    def _do_up(self, peer: Any) -> None:
        if peer.name in self.suspected and not peer.up:
            self.suspected.discard(peer.name)
            peer.say("hello")
            peer.beat()
            return
        many = len(peer.up)
        for _ in range(many):
            super()._do_up(peer)

    def _losses(self, rank: SimRank) -> list[tuple[int, int]]:
        return [(0, 0)]

    def _do_cut(self, rank: SimRank, hears: int = 0, arrive: int = 0) -> None:
        super()._do_cut(rank)

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
            see(name)
            see(zombie)
            see(self.seats.get(name))
        for worker in self._workers_in_order(walk):
            self._see_worker(worker, walk)
        see([self.most, self.left if self.most else None, self.resumed, self.seed])
        if self.resumed or self.left.get("resume"):
            see(self.gone)
        see(sorted(each for each in self.confirmed if each[0] == job.generation))
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
        if lessee is not None and (lessee.hangs or self._can_lose("expire")):
            beats = worker.begun != lessee.items
        walk.see(worker.session)
        walk.see([worker.connected, worker.name in self.suspected, beats, len(worker.failed)])
        walk.see([worker.todo, worker.made, worker.down])

