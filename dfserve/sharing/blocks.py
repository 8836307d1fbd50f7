"""Owns what a consumer reads in shared memory over one connection: pools, and the news of what is free in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dfserve.errors import WireError
from dfserve.sharing.pool_view import PoolView
from dfserve.wire import messages as m
from dfserve.wire.placement import MAX_FREED, Place, pack_freed, unpack_place

log = logging.getLogger("dfserve.client")


class SharedBlocks:
    """The memory that one broker has offered. Views into it outlive this object, and it their connection."""

    def __init__(self) -> None:
        self._views: dict[bytes, PoolView] = {}  # by nonce

    def receive(self, message: m.Message) -> m.Message | None:
        """Take in what the broker says. Returns the answer."""
        if isinstance(message, m.PoolOffer):
            return m.PoolMapped(message.nonce, self._map(message))
        if isinstance(message, m.PoolGone):
            self._views.pop(message.nonce, None)
        return None

    def _map(self, offer: m.PoolOffer) -> bool:
        if offer.nonce in self._views:  # said twice around a hello: of what it has lent is still to be told
            return True
        try:
            self._views[offer.nonce] = PoolView(offer.path, offer.size, offer.nonce)
        except (OSError, ValueError) as error:
            log.info("no memory is shared with the broker: %s", error)
            return False
        return True

    def frames(self, block: Sequence[Any]) -> list[Any] | None:
        """Return a block's frames, given those that came in a message.

        None: they lie in memory that was not offered here. It was before the hello, which crossed the message; the
        broker's answer to that repeats what is missing.

        Raises:
            WireError: they do not say where in this memory the block lies.
        """
        if not block:
            raise WireError("frames", "a block in shared memory without a place")
        place = unpack_place(bytes(block[0]))
        view = self._views.get(place.pool)
        if view is None:
            return None
        try:
            return frames_of(view, place, block[1:])
        except (OSError, ValueError) as error:
            raise WireError("limits", str(error)) from None

    def news(self) -> list[bytes]:
        """Return the frame that tells what is in use no longer, if anything has changed."""
        freed = {}
        left = MAX_FREED
        for name, view in self._views.items():
            if left and (some := view.take_freed(left)):
                freed[name] = some
                left -= len(some)
        return [pack_freed(freed)] if freed else []


def frames_of(view: PoolView, place: Place, inline: Sequence[Any]) -> list[Any]:
    """Return the frames of a block of which some lie in a pool.

    Raises:
        WireError: reason ``frames``: there are not as many others as the place says.
        ValueError: a frame reaches beyond the pool.
    """
    if sum(span is None for span in place.spans) != len(inline):
        raise WireError("frames", f"a block in a pool came with {len(inline)} other frames")
    rest = iter(inline)
    return [next(rest) if span is None else view.frame(*span) for span in place.spans]
