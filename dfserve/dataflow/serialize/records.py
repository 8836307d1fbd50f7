"""Owns a datapoint as one piece of bytes, for files that store datapoints one by one: our wire codec, never a pickle.

A record is ``dfr``, a version byte, the number of frames (4 bytes), the length of each (8 bytes each), then the frames
of a block of one datapoint (``dfserve.wire.blocks``); numbers are little-endian.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.failures import attach_key
from dfserve.errors import EncodeError, WireError
from dfserve.wire.blocks import BlockBuilder
from dfserve.wire.limits import Limits
from dfserve.wire.plain_block import read_datapoint

# Version 1. No protobuf message begins with "d" (the end of a group), so no tf.train.Example looks like this.
MAGIC = b"dfr\x01"
_COUNT = struct.Struct("<4sI")
# An array in a file may be larger than one on the wire: nothing is allocated before its bytes are there.
_LIMITS = Limits(max_frame=1 << 40)


class _Builders(threading.local):
    """A builder for each thread: making one takes longer than a small record does."""

    def __init__(self) -> None:
        self.one = BlockBuilder(max_bytes=1, max_count=1, limits=_LIMITS)  # memory for one datapoint, not for many


_builders = _Builders()


def encode_record(datapoint: Datapoint) -> bytes:
    """Return a datapoint as bytes.

    Raises:
        EncodeError: it is no list, tuple or dict, or a component is of a type that only a pickle could hold; it names
            the component.
    """
    builder = _builders.one
    builder.add(datapoint)
    frames = builder.close().frames
    lengths = [len(frame) for frame in frames]
    head = struct.pack(f"<4sI{len(frames)}Q", MAGIC, len(frames), *lengths)
    return b"".join([head, *frames])


def decode_record(record: bytes | memoryview) -> Datapoint:
    """Return the datapoint, equal to what was encoded, types included; its arrays are writable and its own.

    Raises:
        WireError: these bytes are no record; nothing else, whatever they are.
    """
    view = memoryview(record)
    if len(view) < _COUNT.size:
        raise WireError("frames", f"a record has {len(view)} bytes, fewer than its head")
    magic, count = _COUNT.unpack_from(view)
    start = _COUNT.size + 8 * count
    if magic != MAGIC or count > _LIMITS.max_frames or start > len(view):
        raise WireError("frames", f"a record begins with {bytes(view[:8])!r}")
    lengths = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(view):
        raise WireError("frames", f"a record of {len(view)} bytes says that it has {ends[-1]}")
    return read_datapoint([view[begin:end] for begin, end in pairwise(ends)], _LIMITS)


def encoded(datapoints: Iterable[Datapoint], encode: Callable[[Datapoint], bytes]) -> Iterator[bytes]:
    """Yield datapoints through ``encode``; an EncodeError of it names the datapoint too, which becomes its key."""
    for position, datapoint in enumerate(datapoints):
        try:
            record = encode(datapoint)
        except EncodeError as error:
            placed = EncodeError(f"datapoint {position} cannot be saved: {error}")
            attach_key(placed, datapoint, position)
            raise placed from error
        yield record
