"""Owns the bytes that a worker process and its parent exchange, over pipes that only these two hold."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dfserve.wire.columns import aligned
from dfserve.wire.unpatched import Packer, unpackb

# ---------------------------------------------------------------- parent to worker: words of one size
CONSUMED, FREED, WANTED = range(3)
_WORD = struct.Struct("<Bq")
WORD_BYTES = _WORD.size


def word(kind: int, value: int) -> bytes:
    """Return a word: CONSUMED, datapoints handed out so far; FREED, an extent's offset; WANTED, a pass or ticket."""
    return _WORD.pack(kind, value)


def words(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the words in ``data``."""
    return _WORD.iter_unpack(data)


# ---------------------------------------------------------------- worker to parent; and tasks to a worker: messages
BLOCK, PICKLED, NOTHING, END, FAILED, WAITING = range(6)
LAST = -1  # the label of what a worker says before it ends; passes count from 1
INLINE_BYTES = 16 << 10  # frames that are smaller together go through the pipe: a copy costs less than an extent


@dataclass
class Sent:
    """A message of a worker, or tasks for one.

    Attributes:
        kind: BLOCK: datapoints; PICKLED: one that the codec refuses; NOTHING: the map dropped these; END: of a pass;
            FAILED: an exception; WAITING: the worker needs memory or credit, so that every word counts.
        label: the pass that it belongs to.
        tags: one for each datapoint of BLOCK, PICKLED, NOTHING and FAILED: its ticket in a map, else empty.
        count: datapoints.
        extent: where in the shared memory the frames lie, or -1.
        size: bytes of the shared file that must be mapped to read them.
        frames: of BLOCK: bytes, or the length of a frame in the extent; each begins at a multiple of 64 bytes.
        body: of PICKLED: the pickle; of FAILED: kind, text, key and traceback as strings.
        freed: extents of the tasks' memory that the worker does not use any more.
    """

    kind: int
    label: int = 0
    tags: Sequence[int] = ()
    count: int = 0
    extent: int = -1
    size: int = 0
    frames: Sequence[bytes | int] = ()
    body: Any = None
    freed: Sequence[int] = ()


_pack = Packer(use_bin_type=True, unicode_errors="surrogatepass").pack


def packed(sent: Sent) -> bytes:
    """Return a message as bytes."""
    data: bytes = _pack([list(part) if isinstance(part, tuple) else part for part in vars(sent).values()])
    return data


def unpacked(data: bytes) -> Sent:
    """Return the message. It comes from a process of our own, over a pipe that nobody else has: it is believed."""
    return Sent(*unpackb(data, unicode_errors="surrogatepass"))


def extent_bytes(frames: Sequence[bytes | memoryview]) -> int:
    """Return how long an extent for these frames is."""
    return sum(aligned(len(frame)) for frame in frames)
