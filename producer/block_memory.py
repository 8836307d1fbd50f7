"""Owns the memory that a worker builds its blocks in: a pool, if there is a broker on this machine that reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dfserve.errors import WireError
from dfserve.sharing.loans import Bytes
from dfserve.sharing.machine import machine
from dfserve.sharing.offered_pool import OfferedPool
from dfserve.wire.messages import Message, PoolGone, PoolMapped, ProducerWelcome
from dfserve.wire.placement import pack_place, unpack_freed

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
        self._pool = OfferedPool(lambda why: log.info("no memory is shared with the broker on this machine: %s", why))

    def take(self, nbytes: int) -> Bytes | None:
        """Return memory that the broker reads, see `Supply`; None: there is none, or it is full."""
        return self._pool.take(nbytes)

    def receive(self, message: Message) -> Sequence[Message]:
        """Take in what the broker says. Returns the answers."""
        if isinstance(message, ProducerWelcome):
            self._pool.close()
            here = self._shares and message.machine and message.machine == machine()
            return self._pool.offer(message.budget + BESIDE) if here else []
        return self._pool.receive(message) if isinstance(message, (PoolMapped, PoolGone)) else []

    def freed(self, packed: bytes) -> None:
        """Take back the places that the broker has done with; what is malformed is ignored: it is our own memory."""
        try:
            found = unpack_freed(packed)
        except WireError:
            return
        self._pool.freed(found)

    def place(self, frames: Sequence[Any]) -> list[Any] | None:
        """Return what is sent in place of a block's frames: where they lie, and those that lie elsewhere.

        None: they are to be sent as they are.
        """
        placed = self._pool.place(frames)
        return None if placed is None else [pack_place(placed[0]), *placed[1]]

    def shrink(self) -> None:
        """Return memory to the system that a long queue took and nobody uses any more; to be called now and then."""
        self._pool.shrink()

    def close(self) -> None:
        """Let go of the pool; blocks that lie in it keep it."""
        self._pool.close()
