"""Owns the way from a block as it was delivered to its rows: pieces are joined, and the whole is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfserve.wire.blocks import open_block
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import join
from dfserve.wire.recycler import Recycler
from dfserve.wire.rows import Rows


class Opener:
    """Opens the blocks of one consumer, one after another, in memory that is used again."""

    def __init__(self) -> None:
        self._recycler = Recycler()

    def open(self, frames: Sequence[Any], pieces: Sequence[int]) -> Rows:
        """Return a block's rows.

        Args:
            frames: as they were received.
            pieces: how many of them each frame of the block became; empty if none was cut.

        Raises:
            WireError: the bytes are no block, or pass the limits.
        """
        return open_block(join(frames, pieces, DEFAULT_LIMITS, self._recycler))
