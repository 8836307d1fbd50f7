"""Owns a record of an LMDB file: one datapoint in dfserve's wire codec, with a checksum and its place in the file.

A record is, little-endian: a head (magic, uint32 checksum of what follows, uint64 bytes of the whole record, uint64
place, uint32 number of frames, uint32 bytes of the next two parts); a uint64 length for each frame but the first; the
frames of a block of one datapoint (``dfserve.wire.blocks``), each but the first at the next multiple of 16; zeros up to
a multiple of 16. Nothing is ever unpickled.

The checksum is a CRC-32: of the bytes themselves if they are few, else of the sums of the uint64 of each 4 KiB. Every
flipped bit, and a page that was zeroed, moved or is of an older time, changes it; two flips that cancel out in the sum
of one page do not. The CRC-32 of all bytes would find those too, but takes four times as long as reading the record
does: 43 µs and 11 µs for 150 KB in memory. The sums take 2 µs.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from dfserve.errors import EncodeError, StoreError, WireError
from dfserve.wire.blocks import BlockBuilder, Datapoint
from dfserve.wire.limits import Limits
from dfserve.wire.plain_block import read_datapoint

MAGIC = b"\xc1dfr"  # msgpack never uses the byte 0xC1 and no pickle begins with it
MAX_BYTES = (1 << 32) - 1  # of a value in LMDB
# A file may hold larger arrays than a message: nothing is allocated before its bytes are there.
LIMITS = Limits(max_frame=MAX_BYTES)
ALIGNMENT = 16  # bytes; what malloc gives, and the largest alignment of a dtype

_HEAD = struct.Struct("<4sIQQII")
_read_head = struct.Struct("<4sIQQIIQ").unpack_from  # and the first length; no record ends before it
_LENGTHS = [struct.Struct(f"<{max(0, count - 1)}Q") for count in range(32)]  # by the number of frames
_CHECKED_FROM = 8  # the byte after the checksum
_FEW = 8192  # bytes: the CRC-32 of fewer takes less time than calling numpy does
_PAGE_WORDS = 512  # uint64 in 4 KiB, the unit in which disks and systems lose data
_PAGES = np.arange(0, 1 << 21, _PAGE_WORDS)  # where the pages of a record of up to 16 MiB begin


class RecordWriter:
    """Makes the records of one file, in their order. Not for several threads at once.

    Attributes:
        count: records made so far, and so the place of the next one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._builder = BlockBuilder(max_bytes=1, max_count=1, limits=LIMITS)  # a block is full with one datapoint

    def record(self, datapoint: Datapoint) -> bytearray:
        """Return the record of the next datapoint.

        Raises:
            EncodeError: it is no list, tuple or dict, a component is of a type that does not travel (the message names
                it), or it has more bytes than LMDB takes.
        """
        self._builder.add(datapoint)
        frames = self._builder.close().frames
        lengths = struct.pack(f"<{len(frames) - 1}Q", *map(len, frames[1:]))
        parts: list[Any] = [bytes(_HEAD.size), lengths, frames[0]]
        described = len(lengths) + len(frames[0])
        nbytes = _HEAD.size + described
        for frame in frames[1:]:
            parts += [bytes(-nbytes % ALIGNMENT), frame]
            nbytes += -nbytes % ALIGNMENT + len(frame)
        parts.append(bytes(-nbytes % ALIGNMENT))
        nbytes += -nbytes % ALIGNMENT
        if nbytes > MAX_BYTES:
            raise EncodeError(f"has {nbytes} bytes in all, and LMDB takes {MAX_BYTES} for one datapoint: split it")
        record = bytearray().join(parts)
        _HEAD.pack_into(record, 0, MAGIC, 0, nbytes, self.count, len(frames), described)
        struct.pack_into("<I", record, len(MAGIC), _checksum(memoryview(record), nbytes))
        self.count += 1
        return record


def is_record(value: bytes | memoryview) -> bool:
    """Tell whether bytes begin as a record does."""
    return bytes(value[: len(MAGIC)]) == MAGIC


def read_record(record: memoryview, place: int | None = None, verify: bool = True) -> Datapoint:
    """Return the datapoint, equal to what was saved, types included; its arrays are writable and its own.

    Args:
        record: its bytes; they may go away afterwards.
        place: where it must say that it belongs; None: anywhere.
        verify: compare the checksum.

    Raises:
        StoreError: these bytes are no record, a damaged one, or one of another place.
    """
    try:
        magic, checksum, nbytes, found, count, described, length = _read_head(record)
        # Before anything else is looked at: where LMDB's own pages are damaged, `record` may reach beyond the file.
        if magic != MAGIC or nbytes != len(record) or (found != place and place is not None):
            raise StoreError("is not where it should be: the file is damaged")
        if verify and checksum != _checksum(record, nbytes):
            raise StoreError("has a wrong checksum: the file is damaged")
        end = _HEAD.size + described
        if count == 2:  # one array, as most have
            start = (end + ALIGNMENT - 1) & -ALIGNMENT
            return read_datapoint((record[_HEAD.size + 8 : end], record[start : start + length]), LIMITS)
        return read_datapoint(_frames(record, count, end), LIMITS)
    except (struct.error, WireError) as error:
        raise StoreError(f"is none that dfserve wrote: {error}") from None


def _frames(record: memoryview, count: int, end: int) -> list[memoryview]:
    layout = _LENGTHS[count] if count < len(_LENGTHS) else struct.Struct(f"<{count - 1}Q")
    frames = [record[_HEAD.size + layout.size : end]]
    for length in layout.unpack_from(record, _HEAD.size):
        start = (end + ALIGNMENT - 1) & -ALIGNMENT
        end = start + length
        frames.append(record[start:end])
    return frames


def _checksum(record: memoryview, nbytes: int) -> int:
    if nbytes < _FEW:
        return zlib.crc32(record[_CHECKED_FROM:])
    words: np.ndarray[Any, Any] = np.ndarray(((nbytes - _CHECKED_FROM) // 8,), np.uint64, record, _CHECKED_FROM)
    count = -(-words.size // _PAGE_WORDS)
    pages = _PAGES[:count] if count <= len(_PAGES) else np.arange(0, words.size, _PAGE_WORDS)
    return zlib.crc32(np.add.reduceat(words, pages).data)
