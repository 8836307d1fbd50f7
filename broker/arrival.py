"""Owns what a block goes through when it arrives: decompressed, if there is room for it, and inspected. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dfserve.broker.pools import Pooled
from dfserve.errors import WireError
from dfserve.wire.blocks import inspect_block
from dfserve.wire.compression import Compressed
from dfserve.wire.limits import Limits
from dfserve.wire.pieces import measure

Keep = Callable[[Sequence[Any], Sequence[int]], Pooled | None]  # with frames, and into how many pieces each was cut


def kept_nowhere(_frames: Sequence[Any], _pieces: Sequence[int]) -> None:
    """Copy nothing: no memory is shared."""


@dataclass(frozen=True)
class Arrival:
    """A block that has arrived.

    Attributes:
        frames: of the block. Of a compressed one for which nothing was granted, only what tells their lengths.
        pieces: into how many each of them is cut; empty: each is whole.
        nbytes: of the block, decompressed: what was to be granted for it.
        on_wire: bytes that it took on the network; what lies in shared memory took none.
    """

    frames: Sequence[Any]
    pieces: Sequence[int]
    nbytes: int
    on_wire: int


def arrived(
    frames: Sequence[Any],
    pieces: Sequence[int],
    count: int,
    limits: Limits,
    granted: Callable[[int], bool],
    kept: Keep,
) -> Arrival:
    """Look at a block.

    Args:
        frames: as they came; a compressed block's as `Compressed`, one's in a worker's pool as `Pooled`.
        pieces: into how many each frame was cut.
        count: datapoints that it is said to have.
        limits: on its frames.
        granted: tells whether its sender was granted a block of so many bytes. Nothing is decompressed or copied
            without: that would take memory that no budget has. Whoever the block is given to then says what is wrong.
        kept: copies frames to where consumers read them, or returns None.

    Raises:
        WireError: it breaks the protocol.
    """
    nbytes = sum(len(frame) for frame in frames)
    on_wire = nbytes
    new = False
    if not isinstance(frames, Pooled):
        new = granted(nbytes)
    elif pieces:
        raise WireError("frames", "a block in a pool was cut into pieces")
    else:
        on_wire = sum(map(len, frames.inline))
    if isinstance(frames, Compressed):
        on_wire = frames.on_wire
        if not new:
            return Arrival(frames, pieces, nbytes, on_wire)
        frames = frames.decompressed()
    found = inspect_block(measure(frames, pieces, limits), limits)
    if found != count:
        raise WireError("body", f"a block of {found} datapoints was announced as {count}")
    if new and (copies := kept(frames, pieces)) is not None:
        return Arrival(copies, [], nbytes, on_wire)
    return Arrival(frames, pieces, nbytes, on_wire)
