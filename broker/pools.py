"""Owns the pools on the broker's machine, workers' and its own: who has which mapped, what is lent, what is free again.

A block that lies in a pool is kept there until everybody has had it. Consumers that have the pool mapped too are told
where it lies, and nothing is copied. What a consumer was told of counts as read until it says otherwise; if it vanishes
before, nobody knows, and the worker is asked to build elsewhere: that memory is never used again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dfserve.broker.block_frames import Frames
from dfserve.errors import WireError
from dfserve.sharing.blocks import frames_of
from dfserve.sharing.pool_view import PoolView
from dfserve.wire import messages as m
from dfserve.wire.placement import Place, pack_place, unpack_place

log = logging.getLogger("dfserve.broker")

MOST = 64  # pools of one broker; each takes two descriptors and addresses, here and in each consumer
OURS = b""  # in place of a worker's connection: the broker's own pool, see `dfserve.broker.own_pool`


class LentPool:
    """A pool, and what consumers read in it.

    Attributes:
        doubtful: a consumer vanished that may still read in it: no place of it is to be used again.
        retired: the worker builds in another, or has gone: no more blocks in it will come.
        mapped: connections of consumers that can read in it.
    """

    def __init__(self, view: PoolView, worker: bytes) -> None:
        self.view = view
        self.worker = worker
        self.doubtful = False
        self.retired = False
        self.mapped: set[bytes] = set()
        self._lent: dict[tuple[bytes, int], list[Any]] = {}  # by connection and address

    def lend(self, connection: bytes, frames: Frames) -> None:
        """Keep what lies in the pool until the consumer has done with it."""
        assert frames.place is not None
        for frame, span in zip(frames, frames.place.spans, strict=True):
            if span is not None:
                self._lent.setdefault((connection, span[0]), []).append(frame)

    def give_back(self, connection: bytes, address: int) -> None:
        """Note that a consumer has done with a place; what it was not lent is ignored."""
        frames = self._lent.get((connection, address))
        if frames:
            frames.pop()
            if not frames:
                del self._lent[connection, address]

    def forget(self, connection: bytes) -> bool:
        """Let go of a consumer. Tells whether it may still read here."""
        self.mapped.discard(connection)
        found = [key for key in self._lent if key[0] == connection]
        for key in found:
            del self._lent[key]
        return bool(found)


class Pools:
    """All pools of a broker."""

    def __init__(self) -> None:
        self._said: list[tuple[bytes, m.Message]] = []
        self._pools: dict[bytes, LentPool] = {}  # by nonce
        self._consumers: set[bytes] = set()  # connections that may be told of pools

    def admit(self, connection: bytes) -> None:
        """Take a consumer on this machine in, or in once more: what it had over a connection before is in doubt."""
        self.forget(connection)
        self._consumers.add(connection)
        for pool in self._pools.values():
            self._tell(connection, pool)

    def offered(self, connection: bytes, offer: m.PoolOffer) -> m.PoolMapped:
        """Map what a worker offers, in place of what it offered before. Returns the answer."""
        self._retire_of(connection)
        full = len(self._pools) >= MOST and connection != OURS
        if full or offer.nonce in self._pools:  # nobody takes a pool over that is in use
            return m.PoolMapped(offer.nonce, mapped=False)
        try:
            view = PoolView(offer.path, offer.size, offer.nonce, buys=False)
        except (OSError, ValueError) as error:
            log.info("a worker's memory cannot be read here, its blocks come through its socket: %s", error)
            return m.PoolMapped(offer.nonce, mapped=False)
        pool = self._pools[offer.nonce] = LentPool(view, connection)
        for consumer in self._consumers:
            self._tell(consumer, pool)
        return m.PoolMapped(offer.nonce, mapped=True)

    def _tell(self, consumer: bytes, pool: LentPool) -> None:
        if not pool.retired and not pool.doubtful:
            self._said.append((consumer, m.PoolOffer(pool.view.path, pool.view.size, pool.view.nonce)))

    def mapped(self, connection: bytes, message: m.PoolMapped) -> None:
        """Take in what a consumer says of a pool that it was told of."""
        if not message.mapped or connection not in self._consumers:
            return
        pool = self._pools.get(message.nonce)
        if pool is None:  # it was used up meanwhile
            self._said.append((connection, m.PoolGone(message.nonce)))
        else:
            pool.mapped.add(connection)

    def frames(self, connection: bytes, block: Sequence[Any]) -> Frames:
        """Return the frames of a block that a worker says lies in its pool.

        Raises:
            WireError: it does not.
        """
        if not block:
            raise WireError("frames", "a block in a pool without a place")
        return self.pooled(connection, unpack_place(bytes(block[0])), block[1:])

    def pooled(self, connection: bytes, place: Place, inline: Sequence[Any]) -> Frames:
        """Return the frames of a block that lies at a place in a worker's pool, but for those that came otherwise.

        Raises:
            WireError: it does not.
        """
        pool = self._pools.get(place.pool)
        if pool is None or pool.worker != connection:
            raise WireError("frames", "a block in a pool that was not offered")
        if place.spans[0] is not None:  # it is looked at here, and must not change before consumers look at it
            raise WireError("frames", "the body of a block lies in a pool")
        try:
            return Frames(frames_of(pool.view, place, inline), place=place)
        except (OSError, ValueError) as error:
            raise WireError("limits", str(error)) from None

    def maps(self, connection: bytes, nonce: bytes) -> bool:
        """Whether a consumer can read in a pool."""
        pool = self._pools.get(nonce)
        return pool is not None and connection in pool.mapped

    def lend(self, connection: bytes, frames: Frames) -> list[Any] | None:
        """Return what a consumer is sent in place of a block's frames; None: it cannot read them where they lie."""
        if frames.place is None or not self.maps(connection, frames.place.pool):
            return None
        self._pools[frames.place.pool].lend(connection, frames)
        return [pack_place(frames.place), *frames.inline]

    def freed(self, connection: bytes, freed: dict[bytes, list[int]]) -> None:
        """Take in which places a consumer has done with."""
        for nonce, addresses in freed.items():
            pool = self._pools.get(nonce)
            if pool is not None:
                for address in addresses:
                    pool.give_back(connection, address)

    def take_freed(self) -> list[tuple[bytes, dict[bytes, list[int]]]]:
        """Return for each worker that is to be told of it what everybody has done with; close what is used up."""
        news = []
        for nonce, pool in list(self._pools.items()):
            freed = pool.view.take_freed()
            if freed and not pool.retired and not pool.doubtful:
                news.append((pool.worker, {nonce: freed}))
            elif pool.retired and not pool.view.lent:
                del self._pools[nonce]
                self._said += [(consumer, m.PoolGone(nonce)) for consumer in pool.mapped]
        return news

    def take_said(self) -> list[tuple[bytes, m.Message]]:
        """Return what is to be told to whom beside."""
        said, self._said = self._said, []
        return said

    def forget(self, connection: bytes) -> None:
        """Let go of a client: a worker's pool is used up, a consumer may still read what it was told of."""
        self._retire_of(connection)
        self._consumers.discard(connection)
        for nonce, pool in self._pools.items():
            if pool.forget(connection) and not pool.retired and not pool.doubtful:
                pool.doubtful = True
                self._said.append((pool.worker, m.PoolGone(nonce)))

    def _retire_of(self, worker: bytes) -> None:
        for pool in self._pools.values():
            if pool.worker == worker:
                pool.retired = True

    @property
    def workers(self) -> list[bytes]:
        """Connections of workers that build in a pool."""
        return [pool.worker for pool in self._pools.values() if not pool.retired and pool.worker != OURS]
