"""Owns what a block goes through when it arrives: decompressed, if there is room for it, and inspected. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dfserve.broker.block_frames import Frames
from dfserve.errors import WireError
from dfserve.wire.blocks import inspect_block
from dfserve.wire.compression import Compressed
from dfserve.wire.limits import Limits
from dfserve.wire.pieces import measure


@dataclass(frozen=True)
class Arrival:
    """A block that has arrived.

    Attributes:
        frames: of the block. Of a compressed one for which nothing was granted, only what tells their lengths.
        nbytes: of the block, decompressed: what was to be granted for it.
        on_wire: bytes that it took on the network; what lies in shared memory took none.
    """

    frames: Sequence[Any]
    nbytes: int
    on_wire: int


def arrived(
    frames: Sequence[Any], pieces: Sequence[int], count: int, limits: Limits, granted: Callable[[int], bool]
) -> Arrival:
    """Look at a block.

    Args:
        frames: as they came; a compressed block's as `Compressed`, one's in a worker's pool as `Frames`.
        pieces: into how many each frame was cut.
        count: datapoints that it is said to have.
        limits: on its frames.
        granted: tells whether its sender was granted a block of so many bytes. Nothing is decompressed without: that
            would take memory that no budget has. Whoever the block is given to then says what is wrong with it.

    Raises:
        WireError: it breaks the protocol.
    """
    nbytes = sum(len(frame) for frame in frames)
    on_wire = nbytes
    if isinstance(frames, Frames):
        if pieces:
            raise WireError("frames", "a block in a pool was cut into pieces")
        on_wire = sum(map(len, frames.inline))
    if isinstance(frames, Compressed):
        on_wire = frames.on_wire
        if not granted(nbytes):
            return Arrival(frames, nbytes, on_wire)
        frames = frames.decompressed()
    found = inspect_block(measure(frames, pieces, limits), limits)
    if found != count:
        raise WireError("body", f"a block of {found} datapoints was announced as {count}")
    return Arrival(frames if isinstance(frames, Frames) else Frames(frames, pieces), nbytes, on_wire)
