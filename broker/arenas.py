"""Owns the arenas of a broker: which consumer shares which memory, and the putting of blocks into it."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from dfserve.sharing import arena
from dfserve.sharing.arena import Arena, Placed, place_in
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.pieces import grouped
from dfserve.wire.placement import pack_place, unpack_freed

log = logging.getLogger("dfserve.broker")

# Bytes of one arena: what may be in flight to a consumer (64 MiB), and as much again three times for what its user
# keeps. Memory is taken as it is used, the lowest first, so a consumer that keeps little has a small one.
ARENA_BYTES = 256 << 20
MOST = 64  # arenas of one broker
SMALLEST = 32 << 10  # bytes of a block: below, a socket is as good


class Arenas:
    """What one broker shares with consumers on its machine, by connection."""

    def __init__(self) -> None:
        self._arenas: dict[bytes, Arena] = {}
        self._mapped: set[bytes] = set()
        self._spread: dict[tuple[bytes, int], Placed | None] = {}  # by connection and the identity of the frames
        self._machine = arena.machine()
        self._said = False  # why there is none
        arena.reap()

    def hear(self, connection: bytes, message: m.ArenaWanted | m.ArenaMapped) -> m.Message | None:
        """Take in what a consumer says of its arena. Returns the answer."""
        if isinstance(message, m.ArenaWanted):
            return self._offer(connection) if message.machine == self._machine else None
        mine = self._arenas.get(connection)
        if mine is not None and message.nonce == mine.nonce:
            mine.unlink()
            if message.mapped:
                self._mapped.add(connection)
            else:
                self.drop(connection)
        return None

    def _offer(self, connection: bytes) -> m.Message | None:
        self.drop(connection)  # of a connection that broke: what was under way in it may be lost
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

    def place(self, connection: bytes, message: m.Message, frames: Sequence[Any]) -> list[bytes] | None:
        """Return the frames of a message whose block was put into the consumer's arena; None: it goes by the socket.

        The block is kept there only, should it have to go to another consumer: ``frames``, if they are a list, become
        views of it. The memory that they were can take in the next block while the processor's caches know it.
        """
        if not isinstance(message, (m.Deliver, e.Portion)) or not self._shares(connection, frames):
            return None
        if (connection, id(frames)) in self._spread:
            found = self._spread.pop((connection, id(frames)))
        else:
            found = self._arenas[connection].place(grouped(frames, message.pieces))
        if found is None:
            return None
        if message.pieces:  # they lie in one piece there
            message = replace(message, pieces=[])
        if isinstance(frames, list):  # as those of a received message are
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
        return connection in self._mapped and sum(map(len, frames)) >= SMALLEST

    def shares_with(self, connection: bytes) -> bool:
        """Whether a consumer has mapped an arena."""
        return connection in self._mapped

    def freed(self, connection: bytes, packed: bytes) -> None:
        """Take back the slots that a consumer has done with.

        Raises:
            WireError: reason ``body``: it is no list of slots.
        """
        mine = self._arenas.get(connection)
        for address in unpack_freed(packed):
            if mine is not None:
                mine.give_back(address)

    def drop(self, connection: bytes) -> None:
        """Let go of a consumer's arena; what it has mapped stays its own."""
        self._mapped.discard(connection)
        if (mine := self._arenas.pop(connection, None)) is not None:
            mine.close()

    def keep(self, connections: Container[bytes]) -> None:
        """Let go of the arenas of all others: they said goodbye, or were refused."""
        for connection in [each for each in self._arenas if each not in connections]:
            self.drop(connection)

    def close(self) -> None:
        """Let go of all."""
        for connection in list(self._arenas):
            self.drop(connection)
