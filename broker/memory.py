"""Owns what a broker shares with clients on its machine, and how each block reaches a consumer."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from dfserve.broker.block_frames import Frames
from dfserve.broker.own_pool import OwnPool
from dfserve.broker.pools import OURS, Pools
from dfserve.sharing.machine import machine
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.pieces import cut
from dfserve.wire.placement import pack_freed, unpack_freed

AboutMemory = m.MemoryWanted | m.PoolOffer | m.PoolMapped


class Memory:
    """What one broker shares with clients on its machine, by connection.

    Args:
        size: bytes of its own pool, at most.

    Attributes:
        machine: what names it until it starts again; empty where the kernel does not say.
        pools: the memory in which blocks lie.
    """

    def __init__(self, size: int) -> None:
        self.pools = Pools()
        self.machine = machine()
        self._own = OwnPool(self.pools, size)
        self._here: set[bytes] = set()  # consumers on this machine

    def hear(self, connection: bytes, message: AboutMemory) -> m.Message | None:
        """Take in what a client says of shared memory. Returns the answer."""
        if isinstance(message, m.PoolOffer):
            return self.pools.offered(connection, message)
        if isinstance(message, m.PoolMapped):
            self.pools.mapped(connection, message)
        elif message.machine == self.machine:
            self.drop(connection)  # of a connection that broke: what was under way in it may be lost
            self._here.add(connection)
            self._own.open()
            self.pools.admit(connection)
        return None

    def framed(self, connection: bytes, message: m.Message, frames: Sequence[Any]) -> list[Any]:
        """Return all frames of a message: a block that its consumer cannot read where it lies comes with it."""
        if not (isinstance(message, (m.Deliver, e.Portion)) and isinstance(frames, Frames)):
            return [*m.encode(message), *frames]
        self._own.take_in(connection, frames)
        lent = self.pools.lend(connection, frames)
        if lent is not None:
            return [*m.encode(message, in_memory=True), *lent]
        # On the network no frame is larger than a piece; what came over it is cut already.
        sent, pieces = (frames, frames.pieces) if frames.place is None else cut(frames)
        return [*m.encode(replace(message, pieces=pieces)), *sent]

    def shares_with(self, connection: bytes) -> bool:
        """Whether a consumer was told of memory, and may speak of it."""
        return connection in self._here

    def freed(self, connection: bytes, packed: bytes) -> None:
        """Take in which places a consumer has done with.

        Raises:
            WireError: reason ``body``: it is no list of places.
        """
        self.pools.freed(connection, unpack_freed(packed))

    def take_freed(self) -> dict[bytes, bytes]:
        """Return the frame for each worker that says what everybody has done with."""
        news = dict(self.pools.take_freed())
        self._own.freed(news.pop(OURS, {}))
        return {connection: pack_freed(freed) for connection, freed in news.items()}

    def take_said(self) -> list[tuple[bytes, m.Message]]:
        """Return what is to be told to whom beside."""
        said = self.pools.take_said()
        for connection, message in said:
            if connection == OURS:
                self._own.hear(message)
        return [each for each in (*said, *self.pools.take_said()) if each[0] != OURS]

    def drop(self, connection: bytes) -> None:
        """Let go of a client; what it has mapped stays its own."""
        self._here.discard(connection)
        self.pools.forget(connection)

    def keep(self, connections: Container[bytes]) -> None:
        """Let go of all other clients: they said goodbye, or were refused."""
        for connection in [each for each in (*self._here, *self.pools.workers) if each not in connections]:
            self.drop(connection)

    def shrink(self) -> None:
        """Return to the system what a long queue took; to be called about once a second."""
        self._own.shrink()

    def close(self) -> None:
        """Let go of all."""
        self._own.close()
