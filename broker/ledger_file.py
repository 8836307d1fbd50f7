"""Owns the ledger's file: a header and two slots, into which records go in turn, each confirmed by one flush.

::

    0        header: magic "dfsledgr", u32 version, u64 bytes of a slot n, u32 CRC-32 of these; zeros
    4096     slot 0
    4096+n   slot 1

All integers are little-endian. ``ledger_record`` says what lies in a slot, and why one flush is enough. A record that
outgrows its slot goes into a new file, which takes the old one's place when it is on disk.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from dfserve.broker import ledger_place, ledger_record
from dfserve.broker.ledger_place import named_errors, write_all
from dfserve.broker.ledger_record import MAGIC, SECTOR, VERSION, Found, RecordError
from dfserve.errors import LedgerError

HEADER = 4096  # bytes before the slots, which begin at a page so that a write touches no page of the other slot
SLOT = 64 << 10  # bytes of a new file's slots: hundreds of claims in flight; a whole new file is written in no time
LARGEST_SLOT = 256 << 20  # bytes; a thousand times what a ledger needs, to be read into memory
_HEADER = struct.Struct("<8sIQ")
_CHECK = struct.Struct("<I")
AFTERWARDS = (
    'start the broker with another --ledger file, or with this one moved away, and the trainer with resume="checkpoint"'
)


class LedgerFile:
    """A ledger on disk, locked against other processes while it is open. A context manager; belongs to one thread.

    Attributes:
        path: the file, with links resolved.
        sequence: number of the newest record on disk; 0 if there is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and lock the file, and make sure of the newest record; a file that is missing is made, with its folder.

        Args:
            path: the file; folders get mode 0700 and the file 0600 where they are made.

        Raises:
            LedgerError: it is held by another process (named), no ledger, damaged, of another version, or cannot be
                made, read or written; the message says what to do.
        """
        self.path = Path(os.path.realpath(path))
        self.sequence = 0
        self._failure: LedgerError | None = None
        with named_errors(self.path, "while opening it"):
            self._fd = ledger_place.open_locked(self.path, _file(SLOT))
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        with named_errors(self.path, "while reading it"):
            # A broker that was killed may have left its last record in memory only: what we go on from must be on disk,
            # and be what is on disk.
            os.fsync(self._fd)
            ledger_place.sync_folder(self.path.parent)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self._slot = self._slot_size()
            found = self._slots()
        newest = self._newest(*found)
        self.sequence = newest.sequence or 0 if newest else 0
        self._next = 1 if newest is found[0] else 0

    def read(self) -> bytes | None:
        """Return the newest record's payload; None if none was ever confirmed (a new file).

        Raises:
            LedgerError: the records on disk are damaged, or it cannot be told which one is the newest.
        """
        with named_errors(self.path, "while reading it"):
            newest = self._newest(*self._slots())
        return newest.payload if newest else None

    def write(self, sequence: int, payload: bytes) -> None:
        """Put a record on disk. When this returns it survives any crash; when it raises, nobody knows.

        Args:
            sequence: greater than that of every record before.
            payload: the whole state of the ledger, up to 255 MiB.

        Raises:
            LedgerError: it could not be made durable. That is final: what is on disk is not known after a failed flush,
                so every further write raises the same. The record before is safe.
        """
        if self._failure is not None:
            raise self._failure
        if sequence <= self.sequence:
            raise ValueError(f"record {sequence} does not come after record {self.sequence}")
        record = ledger_record.pack(sequence, payload)
        if len(record) > LARGEST_SLOT:
            raise LedgerError(f"ledger {self.path}: a state of {len(payload)} bytes is more than {LARGEST_SLOT} bytes")
        try:
            with named_errors(self.path, f"while writing record {sequence} ({len(payload)} bytes)"):
                self._write(record)
        except LedgerError as error:
            self._failure = error
            raise
        self.sequence = sequence

    def _write(self, record: bytes) -> None:
        if len(record) > self._slot:
            self._grow(record)
        else:
            # The head last: when this process is killed in between, the old head proves that the record is not whole.
            start = HEADER + self._next * self._slot
            write_all(self._fd, record[SECTOR:], start + SECTOR)
            write_all(self._fd, record[:SECTOR], start)
            os.fdatasync(self._fd)
        self._next = 1 - self._next

    def _grow(self, record: bytes) -> None:
        slot = min(LARGEST_SLOT, 1 << (2 * len(record) - 1).bit_length())
        grown = ledger_place.replace(self.path, _file(slot, record))
        os.close(self._fd)
        self._fd, self._slot, self._next = grown, slot, 0

    def close(self) -> None:
        """Close the file, which ends the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> LedgerFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _slot_size(self) -> int:
        """Check the header and the file's size; returns the bytes of a slot."""
        size = os.fstat(self._fd).st_size
        header = os.pread(self._fd, HEADER, 0)
        if header[: len(MAGIC)] != MAGIC:
            raise LedgerError(
                f"ledger {self.path}: {size} bytes that are no ledger of dfserve's (they begin with "
                f"{header[: len(MAGIC)]!r}, not with {MAGIC!r}); choose another file with --ledger, or, "
                f"if it was one: {AFTERWARDS}"
            )
        if len(header) < HEADER:
            raise self._damaged(f"it has only {size} bytes")
        _, version, slot = _HEADER.unpack_from(header)
        if _CHECK.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
            raise self._damaged("its header fails its check")
        if version != VERSION:
            raise LedgerError(
                f"ledger {self.path} has format version {version}, this dfserve reads version {VERSION}: "
                f"use the dfserve that wrote it, or {AFTERWARDS}"
            )
        if size != HEADER + 2 * slot or slot > LARGEST_SLOT:
            raise self._damaged(f"it has {size} bytes, and should have {HEADER + 2 * slot}")
        return int(slot)

    def _slots(self) -> tuple[Found, Found]:
        first, second = (os.pread(self._fd, self._slot, HEADER + index * self._slot) for index in (0, 1))
        return ledger_record.examine(first), ledger_record.examine(second)

    def _newest(self, first: Found, second: Found) -> Found | None:
        try:
            return ledger_record.newest(first, second)
        except RecordError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> LedgerError:
        return LedgerError(
            f"ledger {self.path} is damaged: {what}. Going on from it could hand items out a second time, "
            f"so it is not used; {AFTERWARDS}"
        )


def _file(slot: int, record: bytes = b"") -> bytes:
    """Return a whole file, with a record in the first slot or with none."""
    header = _HEADER.pack(MAGIC, VERSION, slot)
    header += _CHECK.pack(zlib.crc32(header))
    blank = ledger_record.empty(slot)
    return header.ljust(HEADER, b"\0") + record + blank[len(record) :] + blank
