"""Owns blocks: what travels between a pipeline and a training step, one or more datapoints stored column by column.

A block is a list of frames. Frame 0 is a msgpack body ``[count, kind, keys, columns]``: kind 0, 1, 2 for datapoints
that are lists, tuples, dicts; keys of the dicts, else nil. A column is one of

* ``[0, values]``: the values themselves;
* ``[1, dtype, shape, frame, scalars]``: a stack of arrays of one shape, or of numpy scalars, in that frame;
* ``[2, dtype, shapes, frame]``: arrays of several shapes in that frame, each at the next multiple of 64 bytes.

Nothing is ever unpickled, and everything comes back equal and of the same type, or is refused at the sender. Received
arrays are read-only views of the received frames (``dfserve.wire.copies.writable`` makes copies): a frame may be
shared, and a single array that is kept keeps its whole frame in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dfserve.errors import EncodeError
from dfserve.wire.builder import BlockBuilder, Datapoint, EncodedBlock
from dfserve.wire.limits import DEFAULT_LIMITS, Limits
from dfserve.wire.received import received
from dfserve.wire.rows import Rows

__all__ = [
    "BlockBuilder",
    "Datapoint",
    "EncodedBlock",
    "Rows",
    "decode_block",
    "encode_block",
    "inspect_block",
    "open_block",
]


def encode_block(datapoints: Iterable[Datapoint], limits: Limits = DEFAULT_LIMITS) -> EncodedBlock:
    """Return datapoints of one structure as one block, whatever its size.

    Raises:
        EncodeError: there are none, one cannot travel, or they do not fit into one block.
    """
    builder = BlockBuilder(max_bytes=limits.max_frame * limits.max_frames, max_count=limits.max_count, limits=limits)
    for datapoint in datapoints:
        if not builder.add(datapoint):
            raise EncodeError(
                f"datapoint {builder.count} does not fit into the block of those before it: it has another structure, "
                f"or the block would pass {limits}; use BlockBuilder, which tells when to begin another block"
            )
    if not builder.count:
        raise EncodeError("a block has at least one datapoint")
    return builder.close()


def decode_block(frames: Sequence[Any], limits: Limits = DEFAULT_LIMITS, *, writable: bool = False) -> list[Datapoint]:
    """Return the datapoints of a block, equal to what was added, types included.

    Args:
        frames: objects with the buffer protocol: bytes, memoryviews, zmq.Frames. The arrays are read-only views of
            them and keep them alive.
        limits: what is admitted, checked before anything is allocated.
        writable: let arrays over frames that may be written to (a bytearray, not bytes) be written to.

    Raises:
        WireError: whatever the bytes are, nothing else; ``reason`` is frames, limits, body, dtype or shape.
    """
    return open_block(frames, limits, writable=writable).listed()


def open_block(frames: Sequence[Any], limits: Limits = DEFAULT_LIMITS, *, writable: bool = False) -> Rows:
    """Do as ``decode_block``, with the same errors; the datapoints are made when they are looked at."""
    found = received(frames, limits, build=True, writable=writable)
    return Rows(found, 0, found.count)


def inspect_block(frames: Sequence[Any], limits: Limits = DEFAULT_LIMITS) -> int:
    """Return the number of datapoints of a block, without making an array.

    Raises:
        WireError: exactly when ``decode_block`` does, for the same reason.
    """
    return received(frames, limits, build=False).count
