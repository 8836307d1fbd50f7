"""Owns a block's frames as the broker holds them: as they came through a socket, or where they lie in a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfserve.wire.placement import Place


class Frames(list[Any]):
    """A block's frames.

    Attributes:
        pieces: into how many each was cut on its way, of which this is the list; empty: none was.
        place: where some of them lie in a pool; None: they are as they came through a socket.
    """

    def __init__(self, frames: Sequence[Any], pieces: Sequence[int] = (), place: Place | None = None) -> None:
        super().__init__(frames)
        self.pieces = list(pieces)
        self.place = place

    @property
    def inline(self) -> list[Any]:
        """Those that lie in no pool."""
        if self.place is None:
            return list(self)
        return [frame for frame, span in zip(self, self.place.spans, strict=True) if span is None]
