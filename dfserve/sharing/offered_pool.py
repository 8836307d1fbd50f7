"""Owns a pool as the one who fills it has it: offered, used once it is mapped, and replaced when it is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dfserve.sharing.loans import Bytes
from dfserve.sharing.pool import Pool
from dfserve.wire.messages import PoolGone, PoolMapped, PoolOffer
from dfserve.wire.pieces import PIECE
from dfserve.wire.placement import Place


class OfferedPool:
    """The pool that is offered at present, if any. Blocks that lie in an earlier one keep that.

    Args:
        cannot: is told why the system has no such memory.
    """

    def __init__(self, cannot: Callable[[Exception], object]) -> None:
        self._cannot = cannot
        self._size = 0
        self._pool: Pool | None = None
        self._mapped = False

    @property
    def nonce(self) -> bytes:
        """Of the pool that is used; empty: none is."""
        return self._pool.nonce if self._pool is not None and self._mapped else b""

    def offer(self, size: int) -> list[PoolOffer]:
        """Make a pool of so many bytes at most in place of the one before. Returns its offer, if it could be made."""
        self.close()
        self._size = size
        try:
            pool = self._pool = Pool(size)
        except (OSError, OverflowError) as error:
            self._cannot(error)
            return []
        return [PoolOffer(pool.path, pool.size, pool.nonce)]

    def receive(self, message: PoolMapped | PoolGone) -> list[PoolOffer]:
        """Take in what became of an offer. Returns another, where somebody died who may still read in the pool."""
        if self._pool is None or message.nonce != self._pool.nonce:
            return []
        if isinstance(message, PoolGone):
            return self.offer(self._size)
        self._mapped = message.mapped
        if not message.mapped:
            self.close()
        return []

    def take(self, nbytes: int) -> Bytes | None:
        """Return memory that others read, see `Supply`; None: there is none, or it is full. For any thread."""
        pool = self._pool
        return pool.take(nbytes) if pool is not None and self._mapped else None

    def place(self, frames: Sequence[Any]) -> tuple[Place, list[Any]] | None:
        """Return where a block's frames lie, and those that lie elsewhere; None: it is to be sent as it is.

        Whoever is told of it has each place until it says otherwise.
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
        return Place(pool.nonce, spans), inline

    def freed(self, addresses: Mapping[bytes, Sequence[int]]) -> None:
        """Take back places that readers have done with, by the nonces of their pools."""
        if self._pool is not None:
            for address in addresses.get(self._pool.nonce, ()):
                self._pool.give_back(address)

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
