"""Owns the memory that a worker builds its blocks in: a pool, if there is a broker on this machine that reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dfserve.errors import WireError
from dfserve.sharing.loans import Bytes
from dfserve.sharing.machine import machine
from dfserve.sharing.pool import Pool
from dfserve.wire.messages import Message, PoolGone, PoolMapped, PoolOffer, ProducerWelcome
from dfserve.wire.pieces import PIECE
from dfserve.wire.placement import Place, pack_place, unpack_freed

log = logging.getLogger("dfserve.producer")

# Bytes of a pool beyond the broker's budget, which bounds what waits in it: what its user keeps, and what is being
# built. Only what is used of it is memory.
BESIDE = 256 << 20


class BlockMemory:
    """Where blocks are built.

    Each connection has a pool of its own: what was under way in another when that broke is never used again. All but
    `take` is for the sender's thread.

    Args:
        shares: have a pool, where the broker is on this machine.
    """

    def __init__(self, shares: bool) -> None:
        self._shares = shares
        self._budget = 0
        self._pool: Pool | None = None
        self._mapped = False

    def take(self, nbytes: int) -> Bytes | None:
        """Return memory that the broker reads, see `Supply`; None: there is none, or it is full."""
        pool = self._pool
        return pool.take(nbytes) if pool is not None and self._mapped else None

    def receive(self, message: Message) -> list[Message]:
        """Take in what the broker says. Returns the answers."""
        if isinstance(message, ProducerWelcome):
            self.close()
            self._budget = message.budget
            return self._offer() if self._shares and message.machine and message.machine == machine() else []
        if isinstance(message, (PoolMapped, PoolGone)) and self._pool is not None and message.nonce == self._pool.nonce:
            if isinstance(message, PoolGone):  # somebody died who may still read in it
                self.close()
                return self._offer()
            self._mapped = message.mapped
            if not message.mapped:
                self.close()
        return []

    def _offer(self) -> list[Message]:
        try:
            pool = self._pool = Pool(self._budget + BESIDE)
        except (OSError, OverflowError) as error:
            log.info("no memory is shared with the broker on this machine: %s", error)
            return []
        return [PoolOffer(pool.path, pool.size, pool.nonce)]

    def freed(self, packed: bytes) -> None:
        """Take back the places that the broker has done with; what is malformed is ignored: it is our own memory."""
        try:
            found = unpack_freed(packed)
        except WireError:
            return
        pool = self._pool
        if pool is not None:
            for address in found.get(pool.nonce, ()):
                pool.give_back(address)

    def place(self, frames: Sequence[Any]) -> list[Any] | None:
        """Return what is sent in place of a block's frames: where they lie, and those that lie elsewhere.

        None: they are to be sent as they are.
        """
        pool = self._pool
        if pool is None or not self._mapped:
            return None
        spans = pool.spans(frames)
        inline = [frame for frame, span in zip(frames, spans, strict=True) if span is None]
        if len(inline) == len(frames) or max(map(len, inline), default=0) > PIECE:
            return None
        for span in spans:
            if span is not None:
                pool.lend(*span)
        return [pack_place(Place(pool.nonce, spans)), *inline]

    def shrink(self) -> None:
        """Return memory to the system that a long queue took and nobody uses any more; to be called now and then."""
        if self._pool is not None:
            self._pool.shrink()

    def close(self) -> None:
        """Let go of the pool; blocks that lie in it keep it."""
        self._mapped = False
        if self._pool is not None:
            self._pool.close()
            self._pool = None
