"""Owns the varints of protocol buffers: whole numbers of 64 bits in groups of seven, the lowest first."""

from __future__ import annotations

from typing import Any

import numpy as np

_Ints = np.ndarray[Any, np.dtype[np.int64]]
_LONGEST = 10  # bytes of a varint: 64 bits in sevens
_MORE = 0x80  # the bit of every byte but the last
_SHIFTS = np.arange(0, 7 * _LONGEST, 7, dtype=np.uint64)


def varint(value: int) -> bytes:
    """Return one number from 0 to 2**64 - 1."""
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & 0x7F | _MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(view: memoryview, place: int) -> tuple[int, int]:
    """Return the number that begins at ``place``, from 0 to 2**64 - 1, and the place after it.

    Raises:
        ValueError: it does not end within the view or within 64 bits.
    """
    value = 0
    for position, byte in enumerate(view[place : place + _LONGEST]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < _MORE:
            if value >> 64:
                break
            return value, place + position + 1
    raise ValueError(f"a varint at byte {place} does not end, or has more than 64 bits")


def encode_varints(values: _Ints) -> bytes:
    """Return int64 numbers one after the other; a negative one takes ten bytes, as in protocol buffers."""
    unsigned = values.astype(np.int64).view(np.uint64).reshape(-1, 1)
    rest = unsigned >> _SHIFTS
    groups = (rest & np.uint64(0x7F)).astype(np.uint8)
    more = (rest >> np.uint64(7)) != 0
    more[:, -1] = False
    groups |= more.astype(np.uint8) << np.uint8(7)
    # A byte is written if it is the first or the one before it says that there is more.
    written = np.ones(groups.shape, np.bool_)
    written[:, 1:] = more[:, :-1]
    encoded: bytes = groups[written].tobytes()
    return encoded


def decode_varints(encoded: bytes) -> _Ints:
    """Return the int64 numbers that stand one after the other.

    Raises:
        ValueError: the last does not end, or one has more than ten bytes.
    """
    data = np.frombuffer(encoded, np.uint8)
    if not len(data):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(data < _MORE)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("the last varint of a list does not end")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError(f"a varint has {lengths.max()} bytes; {_LONGEST} hold 64 bits")
    position = np.arange(len(data)) - np.repeat(starts, lengths)
    groups = (data & np.uint8(0x7F)).astype(np.uint64) << _SHIFTS[position]
    # The sum is the bitwise or, since the groups do not overlap; what passes 64 bits is cut, as protobuf does.
    values: _Ints = np.add.reduceat(groups, starts).view(np.int64)
    return values
