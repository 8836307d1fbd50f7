"""Owns the simulation of a whole stream: workers, consumers, cuts and deaths in a random order, from a seed.

The decisions are the real ones (Core, Outbox, Inbox, codec); only sockets and time are simulated.
"""

from __future__ import annotations

import os
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from dfserve.broker import stream
from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.broker.group import Consumer
from dfserve.consumer.inbox import Arrival, Inbox
from dfserve.producer.outbox import Outbox
from dfserve.window import Window
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block, encode_block

# 40 in every run; DFSERVE_TEST_SEEDS=5000 for a night.
SEEDS = int(os.environ.get("DFSERVE_TEST_SEEDS", "40"))


@pytest.fixture(autouse=True)
def patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated consumers are slow: the end must wait for what they hold, as it would in hours of real time."""
    monkeypatch.setattr(stream, "END_HOLD", 1e9)


KB = 1 << 10


class Link:
    """A client's connection: two queues that a cut empties. Messages sent while it is cut are dropped."""

    def __init__(self) -> None:
        self.id = secrets.token_bytes(16)
        self.up: deque[list[bytes]] = deque()
        self.down: deque[tuple[m.Message, list[bytes]]] = deque()
        self.connected = False

    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self.up.append([b""])

    def cut(self, rng: random.Random) -> None:
        """Lose the connection, and of each queue a tail that had not left yet."""
        self.connected = False
        while self.up and rng.random() < 0.7:
            self.up.pop()
        self.down.clear()

    def send(self, message: m.Message, frames: Any = ()) -> None:
        if self.connected:
            self.up.append([*m.encode(message), *frames])


class SimWorker:
    def __init__(self, name: str, items: list[int], per_block: int, passes: int = 1) -> None:
        session = secrets.token_bytes(16)
        identity = m.ProducerHello(session, name, "host", 1, "default", passes, 1, b"", 0, 0)
        self.outbox = Outbox(identity, Window(4))
        self.link = Link()
        self.items = deque(items)
        self.per_block = per_block
        self.finished = False

    def act(self) -> None:
        if not self.outbox.has_room or self.finished:
            return
        if self.items:
            some = [self.items.popleft() for _ in range(min(self.per_block, len(self.items)))]
            block = encode_block([[item, b"x" * 20 * KB] for item in some])
            self.outbox.put_block(block.frames, block.count, block.nbytes)
        else:
            self.outbox.put_finish()
            self.finished = True

    def speak(self) -> None:
        for message, frames in self.outbox.take_outgoing():
            self.link.send(message, [bytes(memoryview(f)) for f in frames])

    def beat(self) -> None:
        self.link.send(self.outbox.beat(0.0))

    def hear(self, message: m.Message, _frames: list[bytes]) -> None:
        assert not isinstance(message, m.Refused), message
        for answer in self.outbox.receive(message):
            self.link.send(answer)


class SimConsumer:
    def __init__(self, name: str, group: str, lag: str = "wait", min_producers: int = 1) -> None:
        self.inbox = Inbox(
            m.ConsumerHello(
                secrets.token_bytes(16), name, "host", 1, "default", group, 2, lag, min_producers, b"", 0, 0
            )
        )
        self.group = group
        self.link = Link()
        self.got: list[int] = []
        self.ends = 0
        self.rows: deque[int] = deque()
        self.open: Arrival | None = None
        self.taken = 0

    def act(self) -> None:
        """Hand out one datapoint, or open the next delivery."""
        if self.rows:
            self.got.append(self.rows.popleft())
            self.taken += 1
            return
        if self.open is not None:
            self.inbox.handed_out(self.open)
            for message in self.inbox.receipt(0.0, 0.0):
                self.link.send(message)
        self.open = self.inbox.first()
        if self.open is None:
            return
        message = self.open.message
        if isinstance(message, m.Deliver):
            self.rows = deque(row[0] for row in decode_block(self.open.frames)[message.skip :])
            self.taken = 0
        elif isinstance(message, m.DeliverEnd):
            self.ends += 1

    def leave(self) -> None:
        """Say goodbye as RemoteDataZMQ.close does."""
        if self.open is not None and not self.rows:
            self.inbox.handed_out(self.open)
            self.taken = 0
        partial = self.taken if self.open is not None and self.rows else 0
        self.link.send(m.Bye(self.inbox.done, partial))

    def beat(self) -> None:
        self.link.send(self.inbox.beat(0.0, 0.0))

    def speak(self) -> None:
        pass

    def hear(self, message: m.Message, frames: list[bytes]) -> None:
        assert not isinstance(message, m.Refused) or message.kind == "expired", message
        for answer in self.inbox.receive(message, frames):
            self.link.send(answer)


Client = SimWorker | SimConsumer


class World:
    def __init__(self, seed: int, budget: int = 1 << 20) -> None:
        self.rng = random.Random(seed)
        self.core = Core(BrokerConfig(queue_bytes=budget, liveness=5.0), wall=lambda: 0.0)
        self.clients: list[Client] = []
        self.time = 0.0
        self.core.tick(0.0)

    def add(self, client: Client) -> Client:
        self.clients.append(client)
        client.link.connect()
        return client

    def step(self) -> None:
        client = self.rng.choice(self.clients)
        choice = self.rng.random()
        if choice < 0.3:
            client.act()
        elif choice < 0.6 and client.link.up:
            self.core.receive(client.link.id, client.link.up.popleft())
        elif choice < 0.9 and client.link.down:
            client.hear(*client.link.down.popleft())
        elif choice < 0.93:
            self.time += self.rng.random()
            self.core.tick(self.time)
            client.beat()
        client.speak()
        self.flush()
        self.check()

    def flush(self) -> None:
        for connection, message, frames in self.core.drain():
            client = next((c for c in self.clients if c.link.id == connection), None)
            if client is not None and client.link.connected:
                header, body = m.encode(message)
                client.link.down.append((m.decode(header, body, len(frames)), list(frames)))
            else:
                self.core.unreachable(connection)

    def check(self) -> None:
        """The byte budget: never exceeded, and every byte has one live owner."""
        budget, job = self.core.budget, self.core.jobs.get("default")
        assert 0 <= budget.used <= budget.total
        if job is None:
            return
        granted = sum(sum(worker.grants) for worker in job.intake.workers.values())
        assert budget.used == granted + job.queued_bytes

    def run_until(self, done: Callable[[], bool], steps: int = 60_000) -> None:
        for _ in range(steps):
            if done():
                return
            self.step()
        pytest.fail("no progress: " + self.describe())

    def describe(self) -> str:
        job = self.core.jobs["default"]
        workers = [(w.name, w.state, w.received, w.granted, w.offered, w.resync) for w in job.intake.workers.values()]
        groups = [(g.name, len(g.pending), [_where(c) for c in g.consumers.values()]) for g in job.groups.values()]
        return f"workers {workers}; groups {groups}; budget {self.core.budget.used}"

    def cut_some(self, probability: float) -> None:
        for client in self.clients:
            if self.rng.random() < probability:
                client.link.cut(self.rng)
                if self.rng.random() < 0.5:
                    self.flush()
                client.link.connect()


def _where(consumer: Consumer) -> tuple[Any, ...]:
    return (consumer.name, consumer.sent, consumer.done, consumer.suspect_since)


def _workers(world: World, count: int, items: int) -> list[int]:
    for number in range(count):
        mine = [number * 1000 + i for i in range(items)]
        world.add(SimWorker(f"w{number}", mine, per_block=world.rng.randint(1, 4)))
    return [number * 1000 + i for number in range(count) for i in range(items)]


def _all_ended(consumers: list[SimConsumer]) -> Callable[[], bool]:
    return lambda: all(consumer.ends for consumer in consumers)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_cut_connections_lose_nothing_and_repeat_nothing(seed: int) -> None:
    world = World(seed, budget=(1 << 20) if seed % 2 else (1 << 21))
    groups = ["a", "b"] if seed % 3 == 0 else ["a"]
    consumers = [world.add(SimConsumer(f"c{g}{i}", g, min_producers=3)) for g in groups for i in range(1 + seed % 3)]
    world.run_until(lambda: len(world.core.jobs.get("default", _NO_JOB).groups) == len(groups))
    produced = _workers(world, 3, 25)
    for _ in range(30):
        for _ in range(world.rng.randint(1, 120)):
            world.step()
        world.cut_some(0.3)
    world.run_until(_all_ended(consumers))
    for group in groups:
        got = Counter(item for c in consumers if c.group == group for item in c.got)
        assert got == Counter(produced)
    world.run_until(lambda: world.core.budget.used == 0)
    assert world.core.tally.redelivered == 0
    delivered = {name: tally.datapoints for name, tally in world.core.tally.groups.items()}
    assert delivered == {group: len(produced) for group in groups}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_consumer_that_dies_loses_nothing_and_repeats_only_what_is_counted_as_in_doubt(seed: int) -> None:
    world = World(seed)
    consumers = [world.add(SimConsumer(f"c{i}", "a", min_producers=2)) for i in range(3)]
    produced = _workers(world, 2, 30)
    for _ in range(world.rng.randint(50, 2500)):
        world.step()
    dead = consumers.pop()
    world.clients.remove(dead)
    if seed % 2:
        world.cut_some(0.5)
    world.run_until(_all_ended(consumers))
    got = Counter(item for c in [*consumers, dead] for item in c.got)
    assert set(got) == set(produced)
    repeated = sum(got.values()) - len(produced)
    assert repeated <= world.core.tally.in_doubt


@pytest.mark.parametrize("seed", range(SEEDS))
def test_consumers_that_leave_give_back_exactly_what_they_had_not_handed_out(seed: int) -> None:
    world = World(seed)
    stays, leaves = (world.add(SimConsumer(name, "a", min_producers=2)) for name in ("stays", "leaves"))
    assert isinstance(stays, SimConsumer)
    assert isinstance(leaves, SimConsumer)
    produced = _workers(world, 2, 30)
    for _ in range(world.rng.randint(50, 2500)):
        world.step()
    world.clients.remove(leaves)
    leaves.leave()
    while leaves.link.up:
        world.core.receive(leaves.link.id, leaves.link.up.popleft())
    world.run_until(_all_ended([stays]))
    assert Counter(stays.got + leaves.got) == Counter(produced)
    assert world.core.tally.redelivered == 0


@pytest.mark.parametrize("seed", range(SEEDS // 3))
def test_a_group_that_may_skip_or_has_no_consumer_never_holds_the_others(seed: int) -> None:
    world = World(seed)
    reads = world.add(SimConsumer("reads", "a", min_producers=2))
    sleeps = world.add(SimConsumer("sleeps", "b", lag="skip"))
    assert isinstance(reads, SimConsumer)
    world.run_until(lambda: len(world.core.jobs.get("default", _NO_JOB).groups) == 2)
    if seed % 2:
        world.clients.remove(sleeps)  # gone, and not even by skipping
        world.core.unreachable(sleeps.link.id)
    else:
        sleeps.act = lambda: None  # type: ignore[method-assign]  # it is there and reads nothing
    produced = _workers(world, 2, 60)
    world.run_until(_all_ended([reads]))
    assert Counter(reads.got) == Counter(produced)
    assert world.core.tally.group("b").skipped > 0


@pytest.mark.parametrize("seed", range(SEEDS // 3))
def test_a_broker_that_is_replaced_gets_again_what_it_had_not_acknowledged(seed: int) -> None:
    world = World(seed)
    consumers = [world.add(SimConsumer(f"c{i}", "a", min_producers=2)) for i in range(2)]
    produced = _workers(world, 2, 30)
    for _ in range(world.rng.randint(50, 1500)):
        world.step()
    old = world.core
    world.core = Core(old.config, wall=lambda: 0.0)
    world.core.tick(world.time)
    for client in world.clients:
        client.link.cut(world.rng)
        client.link.up.clear()
        client.link.connect()
    world.run_until(lambda: _nothing_left(world), steps=100_000)
    got = Counter(item for c in consumers for item in c.got)
    missing = [item for item in produced if item not in got]
    tally = world.core.tally
    assert len(missing) <= 4 * tally.uncertain  # a block holds at most 4
    assert max(got.values()) <= 2


def _nothing_left(world: World) -> bool:
    """Whether every worker's items have been handed out. (An end is not to be had: the old broker knew of some.)"""
    workers = [client for client in world.clients if isinstance(client, SimWorker)]
    consumers = [client for client in world.clients if isinstance(client, SimConsumer)]
    made = all(worker.finished and worker.outbox.empty for worker in workers)
    return made and world.core.budget.used == 0 and not any(len(c.inbox) or c.rows for c in consumers)


class _NoJob:
    groups: ClassVar[dict[str, Any]] = {}


_NO_JOB: Any = _NoJob()
