"""Owns a simulated world around one EpochsJob: workers, ranks, broken connections, a disk that lags, what must hold.

The broker is the real code. Workers and ranks are small models of what the protocol asks of them. A *step* is a tuple
such as ``("up", "w0")``; `World.steps` lists those that are possible, `World.faults` those that break something.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epochs_key import RENAMED, digest, record_of

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.epochs_job import EpochsJob
from dfserve.broker.tally import Tally
from dfserve.epochs.plan import Plan
from dfserve.epochs.rows import Rows
from dfserve.epochs.state import State
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire.messages import ConsumerBeat, Message, Refused

Step = tuple[Any, ...]
FINGERPRINT = "ab" * 8


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        counts: how many outputs each item gives.
        blocks: of budget: so many blocks fit.
        slot: bytes that the broker takes a block to have at first; 0: its own guess, which suits all.
        sizes: bytes of each split's block; () where each has as many as its text.
        faults: how often each kind may happen.
        most: faults in all.
    """

    counts: tuple[int, ...] = (1, 2, 0, 1)
    split_size: int = 2
    world: int = 2
    stride: int = 1
    workers: int = 2
    order: str = "strict"
    even: str = "drop"
    epochs: int = 1
    blocks: int = 2
    slot: int = 0
    sizes: tuple[int, ...] = ()
    ledger: bool = True
    hosts: bool = False  # without a ledger: the rank is in the process whose end ends the broker
    ahead: int = 1
    lazy: bool = False  # ranks hand out when they are asked to, one datapoint at a time
    single: bool = False  # messages arrive one by one, not all that are under way
    seeds: bool = False  # a run that begins afresh has another seed
    failing: tuple[int, ...] = ()  # splits whose first attempt raises
    faults: tuple[tuple[str, int], ...] = ()
    most: int = 2
    lives: int = 2  # how often a rank that was replaced comes back

    @property
    def plan(self) -> Plan:
        even = self.even if self.world > 1 else ""
        return Plan("p", 7, False, self.order, self.split_size, self.world, self.stride, even)

    @property
    def splits(self) -> int:
        return self.plan.splits(len(self.counts))

    def outputs(self, split: int, epoch: int, seed: int = 7) -> list[str]:
        """Return what a split gives: each datapoint says where it comes from."""
        first, count = self.plan.span(split, len(self.counts))
        return [f"{seed}.{epoch}.{p}.{k}" for p in range(first, first + count) for k in range(self.counts[p])]

    def sequence(self, epoch: int, seed: int = 7) -> list[str]:
        """Return the strict order."""
        return [each for split in range(self.splits) for each in self.outputs(split, epoch, seed)]

    def starts(self) -> list[int]:
        return [sum(self.counts[: split * self.split_size]) for split in range(self.splits + 1)]


class Peer:
    """One end of a connection to the broker; both directions are in order and may be lost."""

    def __init__(self, name: str, session: bytes) -> None:
        self.name = name
        self.session = session
        self.connected = False
        self.up: list[tuple[Any, Sequence[Any]]] = []
        self.down: list[tuple[Message, Sequence[Any]]] = []

    def say(self, message: Any, frames: Sequence[Any] = ()) -> None:
        if self.connected:
            self.up.append((message, frames))

    def cut(self) -> None:
        self.connected = False
        self.up.clear()
        self.down.clear()


class SimWorker(Peer):
    """Makes splits one after another, and keeps what it made until the broker has it."""

    def __init__(self, name: str, session: bytes, scenario: Scenario) -> None:
        super().__init__(name, session)
        self.scenario = scenario
        self.todo: dict[int, e.Lease] = {}
        self.made: dict[int, tuple[Message, Sequence[Any]]] = {}
        self.failed: set[tuple[int, int]] = set()
        self.begun = 0

    def connect(self) -> None:
        self.connected = True
        self.say("hello")
        for message, frames in self.made.values():
            self.say(message, frames)
        self.beat()

    def beat(self) -> None:
        self.say(e.LeaseBeat([*self.todo, *self.made], self.begun))

    def hear(self, message: Message, _frames: Sequence[Any]) -> None:
        if isinstance(message, e.Describe):
            n = len(self.scenario.counts)
            self.say(e.Source("Sim", n, False, FINGERPRINT, 1, 0, False, False, ""))
        elif isinstance(message, e.Lease):
            self._forget(message.taken)
            self._lease(message)
        elif isinstance(message, e.Revoke):
            dropped = [number for number in message.leases if number not in self.made]
            for number in dropped:
                self.todo.pop(number, None)
            if dropped:
                self.say(e.Dropped(dropped))
        elif isinstance(message, e.Taken):
            self._forget(message.leases)

    def _forget(self, leases: Sequence[int]) -> None:
        for number in leases:
            self.made.pop(number, None)
            self.todo.pop(number, None)

    def _lease(self, lease: e.Lease) -> None:
        for number in [n for n, each in self.todo.items() if each.generation != lease.generation]:
            del self.todo[number]
        if lease.lease in self.made:
            self.say(*self.made[lease.lease])
        else:
            self.todo.setdefault(lease.lease, lease)  # it may be in the making

    def next(self) -> e.Lease | None:
        wanted = [lease for lease in self.todo.values() if lease.epoch < self.scenario.epochs]
        return min(wanted, key=lambda lease: (lease.epoch, lease.split), default=None)

    def choices(self) -> list[e.Lease]:
        """List what might be made next if it is not known how much of what came last has been heard of."""
        found: list[e.Lease] = []
        for lease in self.todo.values():
            place = (lease.epoch, lease.split)
            if lease.epoch < self.scenario.epochs and not (found and place >= (found[-1].epoch, found[-1].split)):
                found.append(lease)
        return found

    def make(self, lease: e.Lease | None = None) -> None:
        lease = lease or self.next()
        assert lease is not None
        del self.todo[lease.lease]
        self.begun += 1
        answer = self.made[lease.lease] = self._answer(lease)
        self.say(*answer)

    def _answer(self, lease: e.Lease) -> tuple[Message, Sequence[Any]]:
        head = (lease.lease, lease.generation, lease.epoch, lease.split)
        scenario = self.scenario
        if lease.split in scenario.failing and (lease.epoch, lease.split) not in self.failed:
            self.failed.add((lease.epoch, lease.split))
            return e.NotMade(*head, 0, "key", "ValueError", "an item raised", ""), ()
        outputs = scenario.outputs(lease.split, lease.epoch, lease.seed)
        if not outputs:
            return e.MadeNothing(*head, ""), ()
        frame = " ".join(outputs).encode()
        if scenario.sizes:
            frame = frame.ljust(scenario.sizes[lease.split])
        if len(frame) > lease.most:
            return e.NotMade(*head, len(frame), "", "", "too large", ""), ()
        counts = list(scenario.counts[lease.first : lease.first + lease.count])
        return e.Made(*head, len(outputs), counts, ""), (frame,)


@dataclass(eq=False)
class Block:
    """A delivery at a rank. ``number`` 0: an earlier broker confirmed it."""

    number: int
    message: e.Portion | e.Mishap
    frames: Sequence[Any]

    @property
    def padding(self) -> bool:
        return isinstance(self.message, e.Portion) and self.message.padding


class SimRank(Peer):
    """Claims before it hands out, and hands out its rows."""

    def __init__(self, name: str, session: bytes, rank: int, plan: Plan, scenario: Scenario) -> None:
        super().__init__(name, session)
        self.scenario = scenario
        self.rank = rank
        self.plan = plan
        self.resume = "checkpoint"
        self.state: State | None = None
        self.generation = self.broker = b""
        self.received = self.claimed = self.confirmed = 0
        self.waiting: list[Block] = []
        self.epoch = self.total = self.begin = self.passed = 0
        self.final = self.ended = False
        self.confirms = scenario.ledger or (scenario.world == 1 and not scenario.hosts)
        self.opened = 0
        self.ready: list[tuple[int, str]] = []
        self.pads: dict[int, str] = {}
        self.handed: list[tuple[int, int, bool, str]] = []  # epoch, output, padding, datapoint
        self.refused = ""
        self.welcomed = False
        self.lives = -1  # how often it may still connect; below 0: always
        self.report = ""
        self.goodbye: e.Farewell | None = None  # it leaves; nothing is handed out any more
        self.parted = False  # and may forget all

    # ------------------------------------------------------------------ the connection

    def connect(self) -> None:
        self.connected, self.welcomed = True, False
        self.lives -= self.lives > 0
        self.say(self.hello())
        if self.goodbye is not None:
            self.say(self.goodbye)

    def leave(self) -> None:
        """Say goodbye, until that is answered."""
        state = json.dumps(self.state_at(*self.position).to_dict())
        self.goodbye = e.Farewell(self.generation, state)
        self.say(self.goodbye)

    def hello(self) -> e.EpochsHello:
        holding: list[int] = []
        for block in self.waiting:
            if block.number and self.confirmed < block.number <= self.claimed:
                claimant = self.rank + self.plan.world * block.padding
                holding += [block.message.epoch, block.message.split, claimant]
        state = "" if self.state is None else json.dumps(self.state.to_dict())
        return e.EpochsHello(
            self.session, self.name, "host", 1, "p", "g", 50, self.rank, json.dumps(self.plan.to_dict()), self.resume,
            state, "raise", self.scenario.hosts, self.epoch, self.broker, self.generation, self.received, holding,
        )  # fmt: skip

    def hear(self, message: Message, frames: Sequence[Any]) -> None:
        if isinstance(message, Refused):
            self.cut()
            self.refused = "" if message.kind == "taken" else message.text
            return
        if isinstance(message, e.Parted):
            self.parted = True
            self.lives = 0
            return
        if isinstance(message, e.Forming):
            self.broker = message.broker
        elif isinstance(message, e.Opened):
            self._open(message)
        elif isinstance(message, e.Portion | e.Mishap) and message.generation == self.generation:
            self._put(message, frames)
        elif isinstance(message, e.Confirm) and message.generation == self.generation:
            self._confirm(message)
            self.report = message.report or self.report
        elif isinstance(message, ConsumerBeat) and message.sent > self.received:
            self.say(self.hello())
        self.go_on()

    def _open(self, message: e.Opened) -> None:
        state = json.loads(message.state)
        if message.generation != self.generation:
            if self.generation:
                raise Broken(f"{self.name} has generation {self.generation!r} and was told of {message.generation!r}")
            self.plan = Plan(**json.loads(message.plan))
            self.want(state["epoch"], state["begin"])
            self.ended = self.epoch >= self.scenario.epochs
        elif message.broker != self.broker:
            kept = set(zip(message.kept[::3], message.kept[1::3], message.kept[2::3], strict=True))
            self.waiting = [block for block in self.waiting if self._stays(block, kept)]
            for block in self.waiting:
                block.number = 0
        if message.generation != self.generation or message.broker != self.broker:
            self.received = self.claimed = self.confirmed = message.sent
            self.opened = 0
        self.confirms = message.confirms
        self.generation, self.broker, self.welcomed = message.generation, message.broker, True
        self._say_claim()  # as its heartbeat does

    def _say_claim(self) -> None:
        if self.welcomed:
            self.say(e.Claim(self.generation, self.claimed, self.epoch, 0.0))

    def _stays(self, block: Block, kept: set[tuple[int, int, int]]) -> bool:
        claimant = self.rank + self.plan.world * block.padding
        return block.number <= self.confirmed or (block.message.epoch, block.message.split, claimant) in kept

    def _put(self, message: e.Portion | e.Mishap, frames: Sequence[Any]) -> None:
        if message.delivery > self.received + 1:
            raise Broken(f"{self.name} has delivery {self.received} and gets {message.delivery}")
        if message.delivery == self.received + 1:
            self.received += 1
            self.waiting.append(Block(message.delivery, message, frames))
            if isinstance(message, e.Portion):
                self._confirm(message)
            if not self.confirms:
                self.confirmed = self.received

    def _confirm(self, message: e.Portion | e.Confirm) -> None:
        self.confirmed = max(self.confirmed, message.claimed)
        if message.epoch == self.epoch:
            self.total, self.final = max(self.total, message.total), message.final or self.final

    # ------------------------------------------------------------------ the user

    def want(self, epoch: int, begin: int = 0) -> None:
        self.epoch, self.begin, self.total, self.final = epoch, begin, 0, False
        self.passed = self._own_below(begin) if self.plan.order == "strict" else 0
        self.ready.clear()
        self.pads.clear()

    def _own_below(self, number: int) -> int:
        rows = self.plan.rows
        full, rest = divmod(max(0, number), rows.size)
        return full * rows.stride + min(max(rest - self.rank * rows.stride, 0), rows.stride)

    def go_on(self) -> None:
        """Do all that can be done without the broker; a lazy rank only claims."""
        if not self.generation or self.ended or self.refused or self.goodbye:
            return
        if not self.scenario.lazy:
            while self.hand_out():
                pass
        self.claim()

    def claim(self) -> None:
        if not self.welcomed:
            return
        claimed = max(self.claimed, self.opened)
        ahead = sum(block.number <= claimed for block in self.waiting)
        hungry = not any(block.number <= self.confirmed for block in self.waiting)
        for block in self.waiting:
            if block.number > claimed and (ahead < self.scenario.ahead or (hungry and claimed == self.confirmed)):
                claimed, ahead = block.number, ahead + 1
        if claimed > self.claimed:
            self.claimed = claimed
            self._say_claim()

    def can_hand_out(self) -> bool:
        return bool(self.generation) and not (self.ended or self.refused or self.goodbye) and self._next() != "wait"

    def _next(self) -> str:
        rows = self.plan.rows
        if self.final and self.passed >= rows.share(self.total, self.plan.even):
            return "over"
        if self.ready and (rows.world == 1 or self.ready[0][0] < self._limit()):
            return "row"
        if self.final and self.plan.even == "pad" and self.passed >= self._own_below(self.total):
            index = self.passed - self._own_below(self.total)
            if rows.padding(self.rank, self.total)[index] in self.pads:
                return "pad"
        if self.waiting and self.waiting[0].number <= self.confirmed:
            return "open"
        return "wait"

    def _limit(self) -> int:
        if self.final and self.plan.even == "pad":
            return self.total
        return self.plan.rows.ready(self.total)

    def hand_out(self) -> bool:
        """Open a block, hand a datapoint out, or go on to the next epoch. False: the broker must say more."""
        what = self._next()
        if what == "open":
            self._take(self.waiting.pop(0))
        elif what == "row":
            number, datapoint = self.ready.pop(0)
            self._hand(number, datapoint, padding=False)
        elif what == "pad":
            number = self.plan.rows.padding(self.rank, self.total)[self.passed - self._own_below(self.total)]
            self._hand(number, self.pads[number], padding=True)
        elif what == "over":
            self.want(self.epoch + 1)
            self._say_claim()
            self.ended = self.epoch >= self.scenario.epochs
            return not self.ended
        return what != "wait"

    def _take(self, block: Block) -> None:
        message = block.message
        self.opened = block.number
        if isinstance(message, e.Mishap) or message.epoch != self.epoch:
            return
        outputs = block.frames[0].decode().split()
        if message.outputs != len(outputs):
            raise Broken(f"a block of {len(outputs)} outputs is said to have {message.outputs}")
        mine = list(enumerate(outputs[message.skip :], message.start))
        if message.padding:
            self.pads.update(mine)
            return
        if self.plan.order == "arrival":
            self.passed += message.skip
        for number, datapoint in mine:
            own = self.plan.world == 1 or number // self.plan.stride % self.plan.world == self.rank
            if own and (number >= self.begin or self.plan.order == "arrival"):
                self.ready.append((number, datapoint))
        self.ready.sort(key=lambda each: each[0])  # after a crash blocks come again, in any order

    def _hand(self, number: int, datapoint: str, *, padding: bool) -> None:
        self.passed += 1
        self.handed.append((self.epoch, number, padding, datapoint))
        if self.plan.order == "strict" and not padding:
            wanted = [g for g in range(number + 1) if g // self.plan.stride % self.plan.world == self.rank]
            if self.plan.world > 1 and len(wanted) != self.passed:
                raise Broken(f"{self.name} hands out {number} as its datapoint {self.passed} of the epoch")

    # ------------------------------------------------------------------ its position

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.passed

    def state_at(self, epoch: int, passed: int) -> State:
        """Return the checkpoint after so many datapoints of an epoch (strict order, or one rank in that of arrival)."""
        plan, scenario = self.plan, self.scenario
        position: dict[str, Any] = {}
        if plan.order == "strict":
            row, taken = divmod(passed, plan.stride)
            starts = scenario.starts()
            split = max(s for s in range(scenario.splits + 1) if starts[s] <= row * plan.rows.size)
            position = {"row": row, "taken": taken, "split": split, "start": starts[split]}
        else:
            had = Counter(self.split_of(each[3]) for each in self.handed if each[0] == epoch)
            full = {split for split, count in had.items() if count == len(scenario.outputs(split, epoch))}
            part = [(split, count) for split, count in had.items() if split not in full]
            position = {"done": ranges(full), "open": tuple(sorted(part))}
        return State(
            1, "p", FINGERPRINT, len(scenario.counts), plan.seed, False, plan.order, plan.split_size, plan.world,
            plan.stride, plan.even or None, 0, epoch, **position,
        )  # fmt: skip

    def split_of(self, datapoint: str) -> int:
        return int(datapoint.split(".")[2]) // self.plan.split_size


def ranges(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Return the [first, last) ranges of some numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)


class Disk:
    """Records that were handed over, and the last one that would survive a crash."""

    def __init__(self) -> None:
        self.stamp = RENAMED
        self.pending: list[tuple[int, Any]] = []
        self.durable: Any = None

    def save(self, record: dict[str, Any]) -> int:
        self.stamp += 1
        self.pending.append((self.stamp, record_of(record)))
        return self.stamp


class World:
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
        if all(rank.parted for rank in self.ranks) and not self.lost:
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
            if rank.resume == "broker" and not rank.generation:
                rank.refused = "what it would go on after is not known: its run is over"

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

    # ------------------------------------------------------------------ what must hold

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


def _until(handed: list[tuple[int, int, bool, str]], epoch: int, passed: int) -> list[tuple[int, int, bool, str]]:
    before = [each for each in handed if each[0] < epoch]
    return before + [each for each in handed if each[0] == epoch][:passed]


def share(sequence: list[str], rows: Rows, rank: int, even: str) -> list[str]:
    """Return a rank's rows of an epoch."""
    total = len(sequence)
    if rows.world == 1:
        return sequence
    whole = rows.ready(total) if even == "drop" else total
    mine = [sequence[g] for g in range(whole) if g // rows.stride % rows.world == rank]
    return mine + ([sequence[g] for g in rows.padding(rank, total)] if even == "pad" else [])


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
