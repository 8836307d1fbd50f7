"""Owns what is simulated around a broker: a scenario, workers, ranks, and a disk that lags.

Workers and ranks are small models of what the protocol asks of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epochs_key import RENAMED, Record

from dfserve.epochs.plan import Plan
from dfserve.epochs.state import State
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
        self.pending.append((self.stamp, Record(record)))
        return self.stamp
