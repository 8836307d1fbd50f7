"""Owns a simulated world around one EpochsJob: workers, ranks, broken connections, a disk that lags, what must hold.

The broker is the real code. Workers and ranks are small models of what the protocol asks of them. A *step* is a tuple
such as ``("up", "w0")``; `World.steps` lists those that are possible, `World.faults` those that break something.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from epochs_checks import Checks
from epochs_key import digest
from epochs_peers import Broken, Disk, Scenario, SimRank, SimWorker, Step

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.epochs_job import EpochsJob
from dfserve.broker.tally import Tally
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import Message, Refused


class World(Checks):
    """One broker, its workers, its ranks and its disk."""

    job_class = EpochsJob

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.drawn = 0
        self.time = 0.0
        self.disk = Disk()
        self.tally = Tally()
        self.left = dict(scenario.faults)
        self.most = scenario.most
        self.seats: dict[str, Any] = {}
        self.confirmed: set[tuple[bytes, int, int, int, bool]] = set()  # what must never be delivered again
        self.resumed = False  # a rank was killed, and what it had claimed and not handed out is in doubt
        self.lost = False  # a broker without a ledger died: nobody can go on after what it knew
        self.sent: dict[bytes, set[str]] = {}  # by session, to ranks that need no confirmation
        self.seed = scenario.plan.seed
        self.gone: list[SimRank] = []
        self.peers: dict[str, Any] = {}
        self.zombies: dict[str, SimRank] = {}
        self.job = self._broker()
        for number in range(scenario.workers):
            self._add_worker(f"w{number}")
        for rank in range(scenario.world):
            self.peers[f"r{rank}"] = SimRank(f"r{rank}", self._session(), rank, scenario.plan, scenario)
            self.peers[f"r{rank}"].connect()

    def _session(self) -> bytes:
        self.drawn += 1
        return b"session" + self.drawn.to_bytes(9, "big")

    def draw(self, count: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(count, "big")

    def _broker(self) -> EpochsJob:
        scenario = self.scenario
        slot = max(scenario.slot, 1) if scenario.slot else 64 << 10
        budget = Budget(scenario.blocks * charge_of(max(slot, *scenario.sizes) if scenario.sizes else slot))
        save = self.disk.save if scenario.ledger else None
        job = self.job_class(("p", "g"), budget, self.tally, self.send, 1e9, save=save, draw=self.draw)
        job.production.slot = slot
        return job

    def _add_worker(self, name: str) -> None:
        worker = self.peers[name] = SimWorker(name, self._session(), self.scenario)
        worker.connect()

    @property
    def workers(self) -> list[SimWorker]:
        return [peer for peer in self.peers.values() if isinstance(peer, SimWorker)]

    @property
    def ranks(self) -> list[SimRank]:
        return [peer for peer in self.peers.values() if isinstance(peer, SimRank)]

    def everybody(self) -> Iterator[Any]:
        yield from self.peers.values()
        yield from self.zombies.values()

    def send(self, session: bytes, message: Message, frames: Sequence[Any]) -> None:
        for peer in self.everybody():
            if peer.session == session and peer.connected:
                if isinstance(message, e.Portion):
                    self._check_delivery(peer, message)
                    if not peer.confirms:
                        self.sent.setdefault(session, set()).update(frames[0].decode().split())
                peer.down.append((message, frames))

    # ------------------------------------------------------------------ steps

    def steps(self) -> list[Step]:
        """List the steps that break nothing."""
        found: list[Step] = []
        for name, peer in [*self.peers.items(), *self.zombies.items()]:
            found += ((kind, name) for kind in self._possible(peer))
        found += [("cut", name) for name, zombie in self.zombies.items() if zombie.connected]
        if self._over:
            found.append(("rerun",))
        if self._may_return:
            found.append(("return",))
        if self.disk.pending:
            found.append(("disk",))
        return found

    def _possible(self, peer: Any) -> Iterator[str]:
        if peer.connected and peer.up:
            yield "up"
        if peer.connected and peer.down:
            yield "down"
        if not peer.connected and not getattr(peer, "refused", "") and getattr(peer, "lives", 1):
            yield "connect"
        if isinstance(peer, SimWorker):
            if peer.next() is not None:
                yield "make"
            if peer.connected and not peer.up and self._hangs(peer):
                yield "beat"
        elif self.scenario.lazy and peer.can_hand_out():
            yield "user"

    def faults(self) -> list[Step]:
        """List what may break."""
        if not self.most:
            return []
        found: list[Step] = []
        for kind, count in self.left.items():
            if count:
                found += getattr(self, f"_can_{kind}")()
        return found

    def step(self, step: Step) -> None:
        """Do one step, let the broker do what follows from it, and look whether all is well."""
        kind, *names = step
        self.time += 10.0
        if kind in self.left and not self.zombies.keys() & set(names):
            self.left[kind] -= 1
            self.most -= 1
        before = {peer.session: len(peer.handed) for peer in self.everybody() if isinstance(peer, SimRank)}
        getattr(self, f"_do_{kind}")(*(self.peers.get(name) or self.zombies[name] for name in names))
        self.job.pump(self.time)
        self._check_handed(before)
        self.check()

    def _do_up(self, peer: Any) -> None:
        count = 1 if self.scenario.single else len(peer.up)
        for message, frames in peer.up[:count]:
            if not peer.connected:
                return
            del peer.up[0]
            try:
                (self._hear_worker if isinstance(peer, SimWorker) else self._hear_rank)(peer, message, frames)
            except WireError as error:
                if error.reason not in ("config", "taken") or not isinstance(peer, SimRank):
                    raise
                peer.down.append((Refused(error.reason, str(error)), ()))

    def _hear_worker(self, worker: SimWorker, message: Any, frames: Sequence[Any]) -> None:
        production = self.job.production
        if message == "hello":
            production.worker_here(worker.session, worker.name, "host", self.time)
        elif isinstance(message, e.Source):
            production.describe(worker.session, message)
        elif isinstance(message, e.LeaseBeat):
            production.beat(worker.session, message, self.time)
        elif isinstance(message, e.Dropped):
            production.dropped(worker.session, message.leases)
        else:
            self._hear_answer(worker, message, frames)

    def _hear_answer(self, worker: SimWorker, message: Any, frames: Sequence[Any]) -> None:
        production = self.job.production
        lessee = production.lessees.workers.get(worker.session)
        leased = None if lessee is None else lessee.leases.get(message.lease)
        stale = leased is None or message.generation != self.job.generation
        before = self._ledgers() if stale else b""
        if isinstance(message, e.NotMade):
            production.not_made(worker.session, message, self.time)
        else:
            production.made(worker.session, message, frames, self.time)
        if stale and self._ledgers() != before:
            raise Broken(f"5: a block of lease {message.lease}, which nobody has, changed the ledger")

    def _ledgers(self) -> bytes:
        return digest([self.job.epochs, self.job.production.budget.used])

    def _hear_rank(self, rank: SimRank, message: Any, _frames: Sequence[Any]) -> None:
        if isinstance(message, e.EpochsHello):
            self.seats[rank.name] = self.job.rank_hello(message, self.time)
            return
        seat = self.seats.get(rank.name)
        if seat is None:
            return
        if isinstance(message, e.Claim):
            self.job.claim(seat, message)
        else:
            self.job.farewell(seat, message)

    def _do_down(self, peer: Any) -> None:
        count = 1 if self.scenario.single else len(peer.down)
        for _ in range(count):
            if peer.down:
                peer.hear(*peer.down.pop(0))

    def _hangs(self, worker: SimWorker) -> bool:
        lessee = self.job.production.lessees.workers.get(worker.session)
        return lessee is not None and lessee.hangs

    def _do_beat(self, worker: SimWorker) -> None:
        worker.begun += 1
        worker.beat()

    def _do_make(self, worker: SimWorker) -> None:
        worker.make()

    def _do_user(self, rank: SimRank) -> None:
        rank.hand_out()
        rank.claim()

    def _do_connect(self, peer: Any) -> None:
        peer.connect()

    def _do_disk(self) -> None:
        number, self.disk.durable = self.disk.pending.pop(0)
        self.job.saved(number)

    # ------------------------------------------------------------------ faults

    def _can_expire(self) -> list[Step]:
        lessees = self.job.production.lessees.workers
        return [("expire", w.name) for w in self.workers if w.session in lessees and lessees[w.session].leases]

    def _do_expire(self, worker: SimWorker) -> None:
        lessee = self.job.production.lessees.workers[worker.session]
        lessee.progress = -1e30
        self.job.tick(self.time)

    def _can_suspect(self) -> list[Step]:
        return [("suspect", w.name) for w in self.workers if w.connected]

    def _do_suspect(self, worker: SimWorker) -> None:
        self.job.production.worker_unreachable(worker.session)
        worker.say("hello")
        worker.beat()

    def _can_cutw(self) -> list[Step]:
        return [("cutw", w.name) for w in self.workers if w.connected]

    def _do_cutw(self, worker: SimWorker) -> None:
        worker.cut()
        self.job.production.worker_unreachable(worker.session)

    def _can_die(self) -> list[Step]:
        return [("die", w.name) for w in self.workers]

    def _do_die(self, worker: SimWorker) -> None:
        worker.cut()
        self.job.production.worker_gone(worker.session)
        self._add_worker(worker.name)

    def _can_cut(self) -> list[Step]:
        return [("cut", r.name) for r in self.ranks if r.connected]

    def _do_cut(self, rank: SimRank) -> None:
        rank.cut()
        self._unreachable(rank)

    def _unreachable(self, rank: SimRank) -> None:
        seat = self.seats.get(rank.name)
        if seat is not None and seat.session == rank.session:
            self.job.rank_unreachable(seat)

    def _can_crash(self) -> list[Step]:
        return [("crash",)]

    def _do_crash(self) -> None:
        for peer in self.everybody():
            peer.cut()
        self.seats.clear()
        self.disk.pending.clear()
        self.job = self._broker()
        if self.scenario.ledger:
            if self.disk.durable is not None:
                self.job.restore(self.disk.durable)
            return
        self.lost = True
        for rank in self.ranks:
            if rank.parted or (rank.resume == "broker" and not rank.generation):
                rank.refused = "what it would go on after is not known: its run is over"

    def _can_rest(self) -> list[Step]:
        return [("rest",)] if self.job.may_rest else []

    def _do_rest(self) -> None:
        """Another group came while nobody was here; when somebody comes back, the job goes on from its record."""
        workers = list(self.job.production.lessees.workers.values())
        record = self.job.rest()
        assert not self.job.production.budget.used
        self.seats.clear()
        self.job = self._broker()
        if record is not None:
            self.job.restore(json.loads(json.dumps(record)))
        for worker in workers:
            self.job.production.worker_here(worker.session, worker.name, worker.host, self.time)

    def _can_reload(self) -> list[Step]:
        begun = any(rank.generation for rank in self.ranks) and not self.resumed
        return [("reload",)] if begun and (self.scenario.order == "strict" or self.scenario.world == 1) else []

    def _do_reload(self) -> None:
        """All ranks are killed, and come again with the last checkpoint that all of them have."""
        epoch, passed = min(rank.position for rank in self.ranks)
        for old in self.ranks:
            new = self._replace(old)
            if self.scenario.order == "strict":
                new.state, new.handed = old.state_at(epoch, passed), _until(old.handed, epoch, passed)
                new.epoch, new.passed = epoch, passed
            else:
                new.state = old.state_at(epoch, passed) if old.generation else old.state
                new.handed = list(old.handed)
                new.epoch = epoch
        self.resumed = self.lost = False

    def _can_again(self) -> list[Step]:
        return [("again",)] if any(rank.generation for rank in self.ranks) else []

    def _do_again(self) -> None:
        """All ranks are killed, and a run begins afresh."""
        self.seed += self.scenario.seeds
        self.lost = False
        for old in self.ranks:
            new = self._replace(old)
            new.resume = "fresh"
            new.plan = replace(new.plan, seed=self.seed)
        self.resumed = False

    def _do_rerun(self) -> None:
        self._do_again()

    def _can_resume(self) -> list[Step]:
        possible = self.scenario.world == 1 and self.ranks[0].generation and not self.lost
        return [("resume",)] if possible else []

    def _do_resume(self) -> None:
        """The only rank is killed, and goes on after what it had claimed, which is in doubt."""
        old = self.ranks[0]
        new = self._replace(old)
        new.resume = "broker"
        new.handed = list(old.handed)
        self.resumed = True

    def _can_leave(self) -> list[Step]:
        positions = {rank.position for rank in self.ranks}
        possible = self.scenario.order == "strict" or self.scenario.world == 1
        alive = all(rank.generation and not rank.goodbye for rank in self.ranks) and not (self.resumed or self.lost)
        return [("leave",)] if alive and possible and len(positions) == 1 else []

    def _do_leave(self) -> None:
        """All ranks say goodbye at the same position."""
        for rank in self.ranks:
            rank.leave()

    @property
    def _may_return(self) -> bool:
        return all(rank.parted for rank in self.ranks) and not self.lost

    def _do_return(self) -> None:
        """All had their goodbyes answered, and come again to go on where they were."""
        for old in self.ranks:
            new = self._replace(old)
            old.lives = 0
            new.resume = "broker"
            new.handed = list(old.handed)

    def _replace(self, old: SimRank) -> SimRank:
        old.cut()
        old.lives = self.scenario.lives  # it may come back, as one that was out of reach, and go again
        self._unreachable(old)
        self.gone.append(old)
        if old.generation:
            self.zombies[f"z{old.rank}"] = old
        old.name = f"z{old.rank}"
        self.seats.pop(f"r{old.rank}", None)
        plan = self.scenario.plan
        new = SimRank(f"r{old.rank}", self._session(), old.rank, plan, self.scenario)
        self.peers[new.name] = new
        return new


def _until(handed: list[tuple[int, int, bool, str]], epoch: int, passed: int) -> list[tuple[int, int, bool, str]]:
    before = [each for each in handed if each[0] < epoch]
    return before + [each for each in handed if each[0] == epoch][:passed]


class Random:
    """Steps and faults by chance; ``trace`` is what was done, for `replay`."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.trace: list[Step] = []

    def run(self, world: World, likelihood: float, most: int = 5000) -> None:
        """Go on until all ranks have ended; then look whether all is right."""
        for _ in range(most):
            if world.done:
                world.check_end()
                return
            faults = world.faults() if self.rng.random() < likelihood else []
            steps = faults or world.steps()
            if not steps:
                raise Broken("8: nothing can happen, and ranks wait")
            step = self.rng.choice(steps)
            self.trace.append(step)
            world.step(step)
        raise Broken(f"8: no end after {most} steps")


def replay(scenario: Scenario, trace: Sequence[Step], kind: type[World] = World) -> World:
    """Do the steps of a trace again."""
    world = kind(scenario)
    for step in trace:
        world.step(step)
    return world
