"""Owns the broker's own pool: what came over the network is copied to it once, for all consumers on its machine.

To `Pools` it is the pool of one more worker, which lends it, doubts it and tells what is free in it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dfserve.broker.block_frames import Frames
from dfserve.broker.pools import OURS, Pools
from dfserve.sharing.offered_pool import OfferedPool
from dfserve.wire import messages as m
from dfserve.wire.pieces import PIECE, fill, grouped
from dfserve.wire.placement import SMALLEST

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
        self._pool = OfferedPool(self._cannot)
        self._said = False  # why there is none

    def open(self) -> None:
        """Have memory, if the system has such and there is none yet."""
        if not self._pool.nonce:
            self._have_mapped(self._pool.offer(self._size))

    def _have_mapped(self, offers: Iterable[m.PoolOffer]) -> None:
        for offer in offers:
            self._pool.receive(self._pools.offered(OURS, offer))

    def _cannot(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            log.warning("no memory is shared with consumers on this machine, which is slower: %s", error)

    def take_in(self, connection: bytes, frames: Frames) -> None:
        """Copy a block that came through a socket, unless its consumer would not read it here, or there is no room.

        It is kept here only: ``frames`` become views of the copies. What they were can take in the next block while the
        processor's caches know it.

        Args:
            connection: of the consumer.
            frames: of the block, which was inspected.
        """
        if frames.place is not None or not self._pools.maps(connection, self._pool.nonce):
            return
        found = grouped(frames, frames.pieces)
        memory = self._memory([sum(map(len, pieces)) for pieces in found])
        if not memory:
            return
        for number, lease in memory.items():
            fill(lease, found[number])
        whole = [memory[number] if number in memory else _whole(pieces) for number, pieces in enumerate(found)]
        placed = self._pool.place(whole)
        assert placed is not None, "some of it lies there"
        kept = self._pools.pooled(OURS, *placed)
        frames[:], frames.pieces, frames.place = kept, kept.pieces, kept.place

    def _memory(self, lengths: Sequence[int]) -> dict[int, memoryview]:
        """Return memory for the frames that are to lie here, by number; none if they do not all find room.

        The first frame is what the broker has looked at: it travels in messages, as what is small does.
        """
        large = [number for number, nbytes in enumerate(lengths) if number and nbytes >= SMALLEST]
        leases: dict[int, memoryview] = {}
        for number in large if lengths[0] <= PIECE else ():
            if (lease := self._pool.take(lengths[number])) is None:
                return {}
            leases[number] = lease.data
        return leases

    def hear(self, message: m.Message) -> None:
        """Take in what `Pools` says to the worker that it takes this for: make other memory, since this is in doubt."""
        if isinstance(message, m.PoolGone):
            self._have_mapped(self._pool.receive(message))

    def freed(self, addresses: Mapping[bytes, Sequence[int]]) -> None:
        """Take back places that nobody refers to any more."""
        self._pool.freed(addresses)

    def shrink(self) -> None:
        """Return memory to the system that a long queue took and nobody uses any more; to be called now and then."""
        self._pool.shrink()

    def close(self) -> None:
        """Let go of the memory; blocks that lie in it keep it."""
        self._pool.close()


def _whole(pieces: Sequence[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else b"".join(map(bytes, pieces))
