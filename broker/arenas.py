"""Owns what a broker shares with clients on its machine: consumers' arenas, and how each block reaches a consumer."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from dfserve.broker.pools import Pooled, Pools
from dfserve.sharing import arena
from dfserve.sharing.arena import Arena, Placed, place_in
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.pieces import cut, grouped
from dfserve.wire.placement import ARENA, SMALLEST, pack_place, unpack_freed

log = logging.getLogger("dfserve.broker")

# Bytes of one arena: what may be in flight to a consumer (64 MiB), and as much again three times for what its user
# keeps. Memory is taken as it is used, the lowest first, so a consumer that keeps little has a small one.
ARENA_BYTES = 256 << 20
MOST = 64  # arenas of one broker

AboutMemory = m.ArenaWanted | m.ArenaMapped | m.PoolOffer | m.PoolMapped


class Arenas:
    """What one broker shares with clients on its machine, by connection.

    Attributes:
        machine: what names it until it starts again; empty where the kernel does not say.
        pools: the memory in which workers here build their blocks.
    """

    def __init__(self) -> None:
        self.pools = Pools()
        self.machine = arena.machine()
        self._here: set[bytes] = set()  # consumers on this machine
        self._arenas: dict[bytes, Arena] = {}
        self._mapped: set[bytes] = set()
        self._spread: dict[tuple[bytes, int], Placed | None] = {}  # by connection and the identity of the frames
        self._said = False  # why there is none
        arena.reap()

    def hear(self, connection: bytes, message: AboutMemory) -> m.Message | None:
        """Take in what a client says of shared memory. Returns the answer."""
        if isinstance(message, m.PoolOffer):
            return self.pools.offered(connection, message)
        if isinstance(message, m.PoolMapped):
            self.pools.mapped(connection, message)
            return None
        if isinstance(message, m.ArenaWanted):
            return self._admit(connection) if message.machine == self.machine else None
        mine = self._arenas.get(connection)
        if mine is not None and message.nonce == mine.nonce:
            mine.unlink()
            if message.mapped:
                self._mapped.add(connection)
            else:
                self._close(connection)
        return None

    def _admit(self, connection: bytes) -> m.Message | None:
        self.drop(connection)  # of a connection that broke: what was under way in it may be lost
        self._here.add(connection)
        self.pools.admit(connection)
        if len(self._arenas) >= MOST:
            return None
        try:
            mine = self._arenas[connection] = Arena(ARENA_BYTES)
        except OSError as error:
            if not self._said:
                self._said = True
                log.warning("no memory is shared with consumers on this machine, which is slower: %s", error)
            return None
        return m.ArenaOffer(str(mine.path), mine.size, mine.nonce)

    def framed(self, connection: bytes, message: m.Message, frames: Sequence[Any]) -> list[Any]:
        """Return all frames of a message to a consumer.

        Its block is read where it lies in a worker's pool, or else in the consumer's arena, or comes with it.
        """
        if not isinstance(message, (m.Deliver, e.Portion)):
            return [*m.encode(message), *frames]
        lent = self.pools.lend(connection, frames)
        if lent is not None:
            return [*m.encode(message, in_arena=True), *lent]
        placed = self.place(connection, message, frames)
        if placed is not None:
            return placed
        if isinstance(frames, Pooled) and not message.pieces:  # on the network no frame is larger than a piece
            cut_frames, pieces = cut(frames)
            return [*m.encode(replace(message, pieces=pieces)), *cut_frames]
        return [*m.encode(message), *frames]

    def place(self, connection: bytes, message: m.Deliver | e.Portion, frames: Sequence[Any]) -> list[Any] | None:
        """Return the frames of a message whose block was put into the consumer's arena; None: there is no room.

        The block is kept there only, should it have to go to another consumer: ``frames``, if they are a list, become
        views of it. The memory that they were can take in the next block while the processor's caches know it. (That of
        a pool is the worker's.)
        """
        if not self._shares(connection, frames):
            return None
        if (connection, id(frames)) in self._spread:
            found = self._spread.pop((connection, id(frames)))
        else:
            found = self._arenas[connection].place(grouped(frames, message.pieces))
        if found is None:
            return None
        if message.pieces:  # they lie in one piece there
            message = replace(message, pieces=[])
        if isinstance(frames, list) and not isinstance(frames, Pooled):  # as those of a received message are
            frames[:] = found.pieces
        return [*m.encode(message, in_arena=True), pack_place(found.address, found.lengths)]

    def spread(self, outgoing: Sequence[tuple[bytes, m.Message, Sequence[Any]]]) -> None:
        """Put each block that goes to several consumers into all their arenas at once; `place` finds it there.

        Args:
            outgoing: connections, messages and blocks, all of which are to be placed before the next call.
        """
        self._spread.clear()
        if len(self._mapped) < 2:
            return
        blocks: dict[int, list[tuple[bytes, m.Message, Sequence[Any]]]] = {}
        for connection, message, frames in outgoing:
            if frames and self._shares(connection, frames):
                blocks.setdefault(id(frames), []).append((connection, message, frames))
        for number, some in blocks.items():
            connections = list(dict.fromkeys(connection for connection, _, _ in some))
            if len(connections) > 1 and isinstance(message := some[0][1], (m.Deliver, e.Portion)):
                arenas = [self._arenas[connection] for connection in connections]
                for connection, found in zip(
                    connections, place_in(arenas, grouped(some[0][2], message.pieces)), strict=True
                ):
                    self._spread[connection, number] = found

    def _shares(self, connection: bytes, frames: Sequence[Any]) -> bool:
        if connection not in self._mapped or sum(map(len, frames)) < SMALLEST:
            return False
        return not self.pools.reads(connection, frames)

    def shares_with(self, connection: bytes) -> bool:
        """Whether a consumer has been offered memory, and may speak of it."""
        return connection in self._here

    def freed(self, connection: bytes, packed: bytes) -> None:
        """Take back the slots that a consumer has done with.

        Raises:
            WireError: reason ``body``: it is no list of slots.
        """
        freed = unpack_freed(packed)
        mine = self._arenas.get(connection)
        for address in freed.pop(ARENA, ()):
            if mine is not None:
                mine.give_back(address)
        self.pools.freed(connection, freed)

    def drop(self, connection: bytes) -> None:
        """Let go of a client; what it has mapped stays its own."""
        self._here.discard(connection)
        self.pools.forget(connection)
        self._close(connection)

    def _close(self, connection: bytes) -> None:
        self._mapped.discard(connection)
        if (mine := self._arenas.pop(connection, None)) is not None:
            mine.close()

    def keep(self, connections: Container[bytes]) -> None:
        """Let go of all other clients: they said goodbye, or were refused."""
        for connection in [each for each in (*self._here, *self.pools.workers) if each not in connections]:
            self.drop(connection)

    def close(self) -> None:
        """Let go of all."""
        for connection in list(self._arenas):
            self._close(connection)
