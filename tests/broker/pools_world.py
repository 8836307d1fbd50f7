"""Owns a world without sockets for tests of pools: a broker's part, and real memory of workers and consumers."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from dfserve.broker.block_frames import Frames
from dfserve.broker.memory import Memory
from dfserve.producer.block_memory import BlockMemory
from dfserve.sharing.blocks import SharedBlocks
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.builder import BlockBuilder
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import cut, join
from dfserve.wire.placement import unpack_place
from dfserve.wire.recycler import Recycler

LARGE = 600_000  # bytes of an array that is built in a pool
BUDGET = 16 << 20
OWN = 64 << 20  # bytes of the broker's own pool


def array_of(number: int, nbytes: int = LARGE) -> Any:
    return np.full(nbytes, number % 251, np.uint8)


class Worker:
    """A worker's memory, and what it is told over its connection."""

    def __init__(self, world: World, name: bytes) -> None:
        self.world = world
        self.connection = name.ljust(16, b"w")
        self.memory = BlockMemory(True)
        self.sent: list[Any] = []  # that it refers to: of which the broker has not said that it has them

    def hear(self, message: m.Message) -> None:
        for answer in self.memory.receive(message):
            assert isinstance(answer, m.PoolOffer)
            self.world.nonces.add(answer.nonce)
            mapped = self.world.memory.hear(self.connection, answer)
            assert mapped is not None
            self.hear(mapped)

    def join(self) -> None:
        """Make a connection, for the first time or once more."""
        machine = self.world.memory.machine
        self.hear(m.ProducerWelcome(b"b" * 16, 0, DEFAULT_LIMITS.max_frame, BUDGET, machine=machine))

    def leave(self) -> None:
        self.world.memory.drop(self.connection)
        self.memory.close()
        self.sent.clear()

    def build(self, *numbers: int, nbytes: int = LARGE) -> list[Any]:
        builder = BlockBuilder(8 << 20, rows=len(numbers), supply=self.memory.take)
        for number in numbers:
            builder.add([array_of(number, nbytes), number])
        return list(builder.close().frames)

    def send(self, *numbers: int, nbytes: int = LARGE) -> Frames:
        """Return a block as the broker has it."""
        frames = self.build(*numbers, nbytes=nbytes)
        placed = self.memory.place(frames)
        assert placed is not None, "it is not in the pool"
        self.sent.append(frames)
        return self.world.memory.pools.frames(self.connection, [bytes(placed[0]), *placed[1:]])

    @property
    def shares(self) -> bool:
        """Whether it builds in a pool."""
        return self.memory.take(LARGE) is not None

    @property
    def used(self) -> int:
        """Bytes of its pool that are in use."""
        pool = self.memory._pool._pool
        assert pool is not None
        pool._sweep()
        return pool.used

    @property
    def nonce(self) -> bytes:
        nonce = self.memory._pool.nonce
        assert nonce, "no pool of it is used"
        return nonce


class Consumer:
    """A consumer's memory, and what it keeps of what it was sent."""

    def __init__(self, world: World, name: bytes) -> None:
        self.world = world
        self.connection = name.ljust(16, b"c")
        self.shared = SharedBlocks()
        self.kept: list[list[Any]] = []
        self.deliveries = 0
        self.ways: list[str] = []  # how each block came

    def join(self, machine: str | None = None) -> None:
        self.shared = SharedBlocks()
        memory = self.world.memory
        assert memory.hear(self.connection, m.MemoryWanted(memory.machine if machine is None else machine)) is None

    def hear(self, message: m.Message) -> None:
        if (answer := self.shared.receive(message)) is not None:
            assert isinstance(answer, m.PoolMapped)
            self.world.memory.hear(self.connection, answer)

    def have(self, block: Any) -> list[Any]:
        """Be sent a block, and read it."""
        self.deliveries += 1
        message = m.Deliver(self.deliveries, 1, 0, "w", again=False)
        header, body, *frames = self.world.memory.framed(self.connection, message, block)
        if m.is_in_memory(header):
            header = m.without_memory(header)
            packed = bytes(frames[0])
            found = self.shared.frames([packed, *frames[1:]])
            assert found is not None, "it lies in memory that was not offered"
            frames = found
            self.ways.append("own" if unpack_place(packed).pool not in self.world.nonces else "pool")
        else:
            self.ways.append("socket")
        told = m.decode(header, body, len(frames))
        assert isinstance(told, m.Deliver)
        self.kept.append(decode_block(join(frames, told.pieces, DEFAULT_LIMITS, Recycler())))
        return self.kept[-1]

    def say_what_is_free(self) -> None:
        for news in self.shared.news():
            self.world.memory.freed(self.connection, news)

    def drop(self, at: int = 0) -> None:
        """Keep one block no longer, and say so."""
        del self.kept[at]
        self.say_what_is_free()

    def die(self) -> None:
        """Vanish: what it kept is gone, and the broker is not told."""
        self.world.memory.drop(self.connection)
        self.shared = SharedBlocks()
        self.kept.clear()

    @property
    def right(self) -> bool:
        return all((array == number % 251).all() for block in self.kept for array, number in block)


class World:
    """A broker's memory, and everybody that it knows."""

    def __init__(self) -> None:
        self.memory = Memory(OWN)
        self.workers: dict[bytes, Worker] = {}
        self.consumers: dict[bytes, Consumer] = {}
        self.told: list[tuple[bytes, m.Message]] = []
        self.nonces: set[bytes] = set()  # of workers' pools

    def receive(self, *numbers: int, nbytes: int = LARGE) -> Frames:
        """Return a block that came through a socket, as the broker has it."""
        frames = [bytes(frame) for frame in encode_block([[array_of(each, nbytes), each] for each in numbers]).frames]
        return Frames(*cut(frames))

    @property
    def used(self) -> int:
        """Bytes of the broker's own pool that are in use."""
        pool = self.memory._own._pool._pool
        assert pool is not None
        pool._sweep()
        return pool.used

    def worker(self, name: bytes = b"one") -> Worker:
        worker = Worker(self, name)
        self.workers[worker.connection] = worker
        worker.join()
        self.settle()
        return worker

    def consumer(self, name: bytes = b"one") -> Consumer:
        consumer = Consumer(self, name)
        self.consumers[consumer.connection] = consumer
        consumer.join()
        self.settle()
        return consumer

    def settle(self) -> None:
        """Carry all that the broker has to say to whom it says it."""
        said: list[Any] = [True]
        while said:
            freed = self.memory.take_freed()
            for connection, news in freed.items():
                self.workers[connection].memory.freed(news)
            told = self.memory.take_said()
            said = [*freed, *told]
            for connection, message in told:
                self.told.append((connection, message))
                client = self.workers.get(connection) or self.consumers[connection]
                client.hear(message)

    def told_of(self, kind: type[m.Message], client: Worker | Consumer) -> list[m.Message]:
        return [
            message for connection, message in self.told if connection == client.connection and type(message) is kind
        ]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.memory.close()
        self.memory.close()
        gc.collect()


class Chaos:
    """Two workers and three consumers, to whom everything happens in any order.

    Args:
        world: theirs.
        seed: of the order.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)  # an order of events, no secret
        self.workers = [world.worker(b"w%d" % n) for n in range(2)]
        self.consumers = [world.consumer(b"c%d" % n) for n in range(3)]
        self.waiting: list[Frames] = []  # at the broker
        self.number = 0
        self.events: dict[Callable[[], None], int] = {
            self.send: 20, self.receive: 15, self.deliver: 20, self.deliver_to_two: 10, self.drop: 30,
            self.acknowledge: 20, world.settle: 20, self.die: 1, self.come_back: 1, self.connect_again: 1,
        }  # fmt: skip

    def happen(self) -> None:
        self.worker, self.consumer = self.chance.choice(self.workers), self.chance.choice(self.consumers)
        (event,) = self.chance.choices(list(self.events), list(self.events.values()))
        event()

    def send(self) -> None:
        if len(self.waiting) < 8 and self.worker.shares:
            self.number += 1
            self.waiting.append(self.worker.send(*range(self.number, self.number + self.chance.randint(1, 3))))

    def receive(self) -> None:
        if len(self.waiting) < 8:
            self.number += 1
            self.waiting.append(self.world.receive(*range(self.number, self.number + self.chance.randint(1, 3))))

    def _next(self) -> Frames:
        return self.waiting.pop(self.chance.randrange(len(self.waiting)))

    def deliver(self) -> None:
        if self.waiting:
            self.consumer.have(self._next())

    def deliver_to_two(self) -> None:
        if self.waiting:
            block = self._next()
            self.consumer.have(block)
            self.chance.choice(self.consumers).have(block)

    def drop(self) -> None:
        if self.consumer.kept:
            del self.consumer.kept[self.chance.randrange(len(self.consumer.kept))]
            if self.chance.random() < 0.5:
                self.consumer.say_what_is_free()

    def acknowledge(self) -> None:
        del self.worker.sent[:1]

    def die(self) -> None:
        self.consumer.die()
        self.consumer.join()

    def come_back(self) -> None:
        self.consumer.join()  # and keeps what it had

    def connect_again(self) -> None:
        self.worker.join()

    @property
    def right(self) -> bool:
        return all(each.right for each in self.consumers)

    def end(self) -> None:
        """Let everybody have done with everything, and say so."""
        self.waiting.clear()
        for consumer in self.consumers:
            consumer.kept.clear()
            consumer.say_what_is_free()
        for worker in self.workers:
            worker.sent.clear()
        self.world.settle()
