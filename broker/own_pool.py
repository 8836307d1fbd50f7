"""Owns the broker's own pool: what came over the network is copied to it once, for all consumers on its machine.

To `Pools` it is the pool of one more worker, which lends it, doubts it and tells what is free in it again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dfserve.broker.pools import OURS, Frames, Pools
from dfserve.sharing.pool import Pool
from dfserve.wire import messages as m
from dfserve.wire.pieces import PIECE, grouped
from dfserve.wire.placement import SMALLEST, Place, Span

log = logging.getLogger("dfserve.broker")


class OwnPool:
    """Copies blocks to memory that consumers read.

    Args:
        pools: all pools of this broker.
        size: bytes at most; memory is taken as it is used, the lowest first.
    """

    def __init__(self, pools: Pools, size: int) -> None:
        self._pools = pools
        self._size = size
        self._pool: Pool | None = None
        self._said = False  # why there is none

    def open(self) -> None:
        """Have memory, if the system has such and there is none yet."""
        if self._pool is None:
            self._make()

    def _make(self) -> None:
        try:
            pool = Pool(self._size)
        except (OSError, OverflowError) as error:
            if not self._said:
                self._said = True
                log.warning("no memory is shared with consumers on this machine, which is slower: %s", error)
            return
        if self._pools.offered(OURS, m.PoolOffer(pool.path, pool.size, pool.nonce)).mapped:
            self._pool = pool
        else:  # the reason was logged
            pool.close()

    def take_in(self, connection: bytes, frames: Frames, pieces: Sequence[int]) -> None:
        """Copy a block that came through a socket, unless its consumer would not read it here, or there is no room.

        It is kept here only: ``frames`` become views of the copies. What they were can take in the next block while the
        processor's caches know it.

        Args:
            connection: of the consumer.
            frames: of the block, which was inspected.
            pieces: into how many each of its frames was cut; they are whole here.
        """
        pool = self._pool
        if frames.place is not None or pool is None or not self._pools.maps(connection, pool.nonce):
            return
        copies = self._copies(pool, grouped(frames, pieces))
        if copies is not None:
            frames[:], frames.place = copies, copies.place

    def _copies(self, pool: Pool, frames: list[list[Any]]) -> Frames | None:
        spans: list[Span | None] = []
        inline: list[Any] = []
        leases: list[memoryview] = []  # which hold the places until they are lent
        for number, some in enumerate(frames):
            nbytes = sum(map(len, some))
            if not number or nbytes < SMALLEST:  # the first is what the broker has looked at: it travels in messages
                spans.append(None)
                inline.append(some[0] if len(some) == 1 else b"".join(map(bytes, some)))
                continue
            memory = pool.take(nbytes)
            if memory is None:
                return None
            leases.append(memory.data)
            spans.append(_filled(pool, leases[-1], some))
        if not leases or max(map(len, inline)) > PIECE:
            return None
        for span in filter(None, spans):
            pool.lend(*span)
        return self._pools.pooled(OURS, Place(pool.nonce, spans), inline)

    def hear(self, message: m.Message) -> None:
        """Take in what `Pools` says to the worker that it takes this for: make other memory, since this is in doubt."""
        if isinstance(message, m.PoolGone) and self._pool is not None and message.nonce == self._pool.nonce:
            self.close()
            self._make()

    def freed(self, freed: Mapping[bytes, Sequence[int]]) -> None:
        """Take back places that nobody refers to any more."""
        if self._pool is not None:
            for address in freed.get(self._pool.nonce, ()):
                self._pool.give_back(address)

    def shrink(self) -> None:
        """Return memory to the system that a long queue took and nobody uses any more; to be called now and then."""
        if self._pool is not None:
            self._pool.shrink()

    def close(self) -> None:
        """Let go of the memory; blocks that lie in it keep it."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _filled(pool: Pool, memory: memoryview, pieces: Sequence[Any]) -> Span:
    start = 0
    for piece in pieces:
        memory[start : start + len(piece)] = memoryview(piece).cast("B")
        start += len(piece)
    address = pool.address_of(memory)
    assert address is not None, "it was taken from here"
    return address, start
