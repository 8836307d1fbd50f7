"""Owns the framing of TFRecord files: records of bytes one after the other, each with its length and two checksums.

A record is: its length, 8 bytes; a masked CRC-32C of these, 4 bytes; the payload; a masked CRC-32C of the payload,
4 bytes; all little-endian. As described in https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from dfserve.errors import EncodeError, StoreError

_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_OVERHEAD = _HEAD.size + _CRC.size  # bytes of a record beside its payload
_MASK = 0xA282EAD8  # the format's constant: so that a checksum of data that holds checksums is no special case
_WORD = 0xFFFFFFFF
# Bytes of one payload, checked before they are allocated. The size up to which protobuf, and so TensorFlow, reads one.
MAX_PAYLOAD = (1 << 31) - 1
_BUFFER = 1 << 20  # bytes read ahead: small records cost few system calls, and a disk reads in one go
_GZIP = b"\x1f\x8b"


def import_crc32c() -> Callable[[bytes], int]:
    """Return the function that computes a CRC-32C; raises ImportError where google-crc32c is missing."""
    try:
        from google_crc32c import value
    except ImportError as error:
        raise ImportError("TFRecord files have CRC-32C checksums: pip install 'dfserve[formats]'") from error
    crc32c: Callable[[bytes], int] = value
    return crc32c


def masked(crc: int) -> int:
    """Return a checksum as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK) & _WORD


def write_record(file: IO[bytes], payload: bytes, crc32c: Callable[[bytes], int]) -> None:
    """Append one record to a file.

    Raises:
        EncodeError: the payload is larger than TensorFlow reads, 2 GiB less a byte.
    """
    if len(payload) > MAX_PAYLOAD:
        raise EncodeError(f"a record of {len(payload)} bytes; TFRecord readers take {MAX_PAYLOAD} at most")
    length = len(payload).to_bytes(8, "little")
    file.write(length + _CRC.pack(masked(crc32c(length))))
    file.write(payload)
    file.write(_CRC.pack(masked(crc32c(payload))))


def read_records(path: Path, crc32c: Callable[[bytes], int]) -> Generator[bytes, None, None]:
    """Yield the payloads of a file from its beginning, each after both its checksums were found right.

    A file that was cut between two records looks like a whole one: the format has no count and no end.

    Raises:
        StoreError: the file is empty, foreign, damaged or cut short; it names the file, the record and the byte.
    """
    with path.open("rb", buffering=_BUFFER) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if not size:
            raise StoreError(f"{path} is empty, so it was never written whole: save or copy it again")
        offset = number = 0
        while offset < size:
            payload = _read_record(file, size - offset, _Place(path, number, offset), crc32c)
            yield payload
            offset += _OVERHEAD + len(payload)
            number += 1


class _Place:
    """Where in which file a record begins."""

    def __init__(self, path: Path, number: int, offset: int) -> None:
        self.path, self.number, self.offset = path, number, offset

    def error(self, what: str) -> StoreError:
        return StoreError(
            f"{self.path} is damaged at record {self.number}, byte {self.offset}: {what}; copy or save it again"
        )


def _read_record(file: IO[bytes], left: int, place: _Place, crc32c: Callable[[bytes], int]) -> bytes:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise place.error(f"it ends {_HEAD.size - len(head)} bytes before the record's payload begins")
    length, check = _HEAD.unpack(head)
    if masked(crc32c(head[:8])) != check:
        raise _foreign(place, head) if not place.offset else place.error("the checksum of its length is wrong")
    if length > MAX_PAYLOAD:
        raise place.error(f"a record of {length} bytes; {MAX_PAYLOAD} are the most that is read")
    if length > left - _OVERHEAD:
        raise place.error(f"the record should go on for {length - left + _OVERHEAD} bytes after the end of the file")
    payload = file.read(length)
    tail: Any = file.read(_CRC.size)
    if len(payload) < length or len(tail) < _CRC.size:
        raise place.error("the file became shorter while it was read")
    if masked(crc32c(payload)) != _CRC.unpack(tail)[0]:
        raise place.error(f"the checksum of its payload ({length} bytes) is wrong")
    return payload


def _foreign(place: _Place, head: bytes) -> StoreError:
    if head.startswith(_GZIP):
        return StoreError(f"{place.path} is compressed with gzip, which is not read here: run gunzip on it first")
    return StoreError(
        f"{place.path} is no TFRecord file, or damaged in its first 12 bytes: the checksum of the first record's"
        " length is wrong"
    )
