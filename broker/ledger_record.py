"""Owns the form of a ledger's record on disk, and the rule which of two records counts after a crash.

A record is the whole state of the ledger (bytes whose meaning is not known here) under a growing sequence number. A
file has two slots, and records go to them in turn: record n is written over the one before the last, while the last
one, which was confirmed, lies whole in the other slot. A record is confirmed only after all of it is on disk.

Two things can go wrong with a slot, and they ask for opposite answers:

- *Torn*: the machine stopped while n was written. Nobody was told of n; the record in the other slot counts.
- *Decayed*: n was confirmed, and bytes of it changed later. The record in the other slot is too old: going on from it
  would hand out again what was handed out. The ledger must be refused.

So a record is cut into sectors of 512 bytes, which disks write whole, and every sector carries a CRC-32 of its own and
the record that it belongs to: its sequence number and its CRC-32. The first sector is the *head*; it is written last. A
slot is passed over only on a proof, a whole sector which says that the last write to the slot did not end:

- the head belongs to a record older than the other slot's (or to none: the slot was never written), or
- in the place of one of the sectors that the head's record has, there is a whole sector of another record.

Why no confirmed record is lost: when n is confirmed, every sector in its extent is a sector of n. Decay turns such a
sector into one whose CRC fails, not into a whole sector of another record (but once in 2**32 times for random bytes,
and never for up to three flipped bits). So there is no proof, the slot is *damaged*, and the ledger is refused.

Why a crash does no harm: each sector then holds its old or its new bytes, both whole; either n is complete, or a sector
is old, which is the proof. This holds in whatever order the sectors reached the disk, so one flush is enough.

What remains. A write that tore inside of a sector is refused, unless another sector has the proof: the safe side. A
disk that confirmed a flush and later returns an older whole sector (a lost write, a snapshot that was restored) looks
as if torn, and no checksum tells. A file that is shorter, or has zeros in it, is refused: no crash of ours leaves that.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

MAGIC = b"dfsledgr"
VERSION = 1
SECTOR = 512  # bytes; the smallest that disks write whole, and a divisor of all larger ones
LARGEST = (1 << 64) - 1  # the largest sequence number
_CHECK = struct.Struct("<I")  # begins a sector: CRC-32 of the rest of it
_TAG = struct.Struct("<IQI")  # goes on: place within the record; the record's sequence number and CRC-32
_HEAD = struct.Struct("<8sIQ")  # magic, version, bytes of payload: these begin the record's content
_SEQUENCE = struct.Struct("<Q")
CONTENT = SECTOR - _CHECK.size - _TAG.size  # bytes of a record's content in each sector


class RecordError(ValueError):
    """Neither slot may be used; the message says why. The file's owner makes a LedgerError with its name of it."""


class State(enum.Enum):
    """What a slot holds."""

    WHOLE = "whole"
    EMPTY = "empty"  # never written, or not as far as the head
    TORN = "torn"  # proven: the last write did not end
    DAMAGED = "damaged"  # anything else


@dataclass(frozen=True)
class Found:
    """What was found in a slot.

    Attributes:
        state: as above.
        sequence: the number of the head's record; 0 in an empty slot, None where the head itself is damaged.
        payload: of a whole record, else empty.
        reason: of a torn or damaged one: what is wrong, for a message.
    """

    state: State
    sequence: int | None
    payload: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class _Sector:
    sequence: int
    record: int  # the record's CRC-32
    content: bytes

    def of_one_record_with(self, other: _Sector) -> bool:
        return (self.sequence, self.record) == (other.sequence, other.record)


def packed_size(payload_bytes: int) -> int:
    """Return how many bytes of a slot a record takes, a multiple of 512."""
    return _sectors(payload_bytes) * SECTOR


def pack(sequence: int, payload: bytes) -> bytes:
    """Return a record as it lies in a slot: whole sectors, the head first.

    Args:
        sequence: 1 to 2**64 - 1.
        payload: the state, of any length.
    """
    if not 1 <= sequence <= LARGEST:
        raise ValueError(f"sequence number {sequence} is not from 1 to 2**64 - 1")
    content = _HEAD.pack(MAGIC, VERSION, len(payload)) + payload
    record = _crc(sequence, content)
    return b"".join(
        _packed_sector(index, sequence, record, content[start : start + CONTENT])
        for index, start in enumerate(range(0, len(content), CONTENT))
    )


def empty(nbytes: int) -> bytes:
    """Return a slot of ``nbytes`` that was never written: whole sectors that belong to no record."""
    return b"".join(_packed_sector(index, 0, 0, b"") for index in range(nbytes // SECTOR))


def examine(slot: bytes) -> Found:
    """Look what a slot holds. Never raises, whatever the bytes."""
    head = _sector(slot, 0)
    if head is None:
        return Found(State.DAMAGED, None, reason="the first sector fails its check")
    if not head.sequence:
        return Found(State.EMPTY, 0)
    magic, version, length = _HEAD.unpack_from(head.content)
    count = _sectors(length)
    if magic != MAGIC or version != VERSION or count * SECTOR > len(slot):
        return Found(State.DAMAGED, head.sequence, reason="the first sector is no head of a record")
    return _examine_all(head, [_sector(slot, index) for index in range(count)], length)


def _examine_all(head: _Sector, sectors: list[_Sector | None], length: int) -> Found:
    whole = [sector for sector in sectors if sector is not None]
    strange = sum(not sector.of_one_record_with(head) for sector in whole)
    if strange:
        reason = f"{strange} of {len(sectors)} sectors are another record's"
        return Found(State.TORN, head.sequence, reason=reason)
    if len(whole) < len(sectors):
        reason = f"{len(sectors) - len(whole)} of {len(sectors)} sectors fail their check"
        return Found(State.DAMAGED, head.sequence, reason=reason)
    content = b"".join(sector.content for sector in whole)[: _HEAD.size + length]
    if _crc(head.sequence, content) != head.record:
        return Found(State.DAMAGED, head.sequence, reason="the record fails its check")
    return Found(State.WHOLE, head.sequence, content[_HEAD.size :])


def newest(first: Found, second: Found) -> Found | None:
    """Return the record that counts; None if no record was ever completed.

    Raises:
        RecordError: it cannot be told, or it is damaged.
    """
    whole = [found for found in (first, second) if found.state is State.WHOLE]
    if not whole:
        # The second slot is written for the first time only when the first one is whole, and stays so.
        if second.state is State.EMPTY and first.state in (State.EMPTY, State.TORN):
            return None
        raise RecordError(f"no whole record ({_described(first)}; {_described(second)})")
    best = max(whole, key=lambda found: found.sequence or 0)
    other = second if best is first else first
    if _may_be_newer(other, best):
        raise RecordError(f"record {best.sequence} is whole, but may not be the last one ({_described(other)})")
    return best


def _may_be_newer(other: Found, best: Found) -> bool:
    """Tell whether a slot may hold what is left of a record that was confirmed after ``best``."""
    if other.sequence is None or best.sequence is None:
        return True
    if other.sequence == best.sequence:
        return True  # no number is used twice
    return other.state is State.DAMAGED and other.sequence > best.sequence


def _described(found: Found) -> str:
    number = "a slot" if not found.sequence else f"the slot of record {found.sequence}"
    return f"{number} is {found.state.value}" + (f": {found.reason}" if found.reason else "")


def _sectors(length: int) -> int:
    return -(-(_HEAD.size + length) // CONTENT)


def _crc(sequence: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(_SEQUENCE.pack(sequence)))


def _packed_sector(index: int, sequence: int, record: int, content: bytes) -> bytes:
    tag = _TAG.pack(index, sequence, record)
    content = content.ljust(CONTENT, b"\0")
    return _CHECK.pack(zlib.crc32(content, zlib.crc32(tag))) + tag + content


def _sector(slot: bytes, index: int) -> _Sector | None:
    """Read a sector; None unless it is whole and in its place."""
    sector = slot[index * SECTOR : (index + 1) * SECTOR]
    if len(sector) < SECTOR or _CHECK.unpack_from(sector)[0] != zlib.crc32(sector[_CHECK.size :]):
        return None
    place, sequence, record = _TAG.unpack_from(sector, _CHECK.size)
    return _Sector(sequence, record, sector[_CHECK.size + _TAG.size :]) if place == index else None
