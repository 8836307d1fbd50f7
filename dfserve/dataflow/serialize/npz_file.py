"""Owns an uncompressed ``.npz`` that is open for reading by place, after every checksum in it was found right.

It is read and not mapped: touching a page that somebody cut off meanwhile would end the process with SIGBUS.
"""

from __future__ import annotations

import errno
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from dfserve.dataflow.serialize.npy import LONGEST_HEADER, read_header, view_npy
from dfserve.errors import StoreError

_Array = np.ndarray[Any, np.dtype[Any]]
_CHUNK = 1 << 20  # bytes read at once for the checksums
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and of its extra field, which follow it


class NpzFile:
    """An ``.npz`` that is open, also if another takes its name; closed when nobody holds it any more.

    Attributes:
        names: of its arrays, in their order.
    """

    _descriptor = -1

    def __init__(self, path: Path, *, check: bool) -> None:
        """Open ``path``.

        Args:
            path: the file.
            check: read it all to compare the checksums (about 1 s for each GB); without, it was checked before.

        Raises:
            StoreError: it is no zip, damaged, compressed, or holds something else than arrays; it names the file.
            OSError: it cannot be opened.
        """
        self._path = path
        with path.open("rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    if check:
                        _check(archive)
                    members = archive.infolist()
                    self._places = {member.filename.removesuffix(".npy"): _place(file, member) for member in members}
                    self._headers = {name: self._header(file, name) for name in self._places}
            except Exception as error:
                # zipfile raises a dozen kinds on bad bytes; what the system says has a number, and EINVAL is a seek to
                # a place that bad bytes named.
                if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                    raise
                raise StoreError(
                    f"{path} is damaged, cut short or no .npz of dfserve: {type(error).__name__}: {error}; save or copy"
                    " it again"
                ) from error
            self._descriptor = os.dup(file.fileno())  # read by place, so processes that share it do not disturb
        self.names = list(self._places)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def array(self, name: str) -> _Array:
        """Return an array, whole and read-only; raises StoreError if the file was cut short."""
        start, size = self._places[name]
        return view_npy(memoryview(self.read(start, size)))

    def bytes_of(self, name: str) -> tuple[int, int] | None:
        """Return where the bytes of a flat array of uint8 begin in the file, and how many; None if it is another."""
        shape, dtype, start = self._headers[name]
        return (self._places[name][0] + start, shape[0]) if dtype == np.uint8 and len(shape) == 1 else None

    def read(self, start: int, size: int) -> bytes:
        """Return ``size`` bytes from ``start`` on; raises StoreError if the file was cut short."""
        data = os.pread(self._descriptor, size, start)
        while len(data) < size:  # the system reads 2 GiB at once at most
            more = os.pread(self._descriptor, size - len(data), start + len(data))
            if not more:
                end = os.fstat(self._descriptor).st_size
                raise StoreError(
                    f"{self._path} ends at byte {end} and had more when it was opened: it was cut short or is being"
                    " overwritten; save or copy it again"
                )
            data += more
        return data

    def _header(self, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        start, size = self._places[name]
        if start + size > os.fstat(file.fileno()).st_size:
            raise EOFError(f"{name} would end at byte {start + size}")
        file.seek(start)
        try:
            shape, _, dtype, begin = read_header(file.read(min(size, LONGEST_HEADER)), size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return shape, dtype, begin


def _check(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed (tensorpack's are, and pickled: they are not loaded)")
        with archive.open(member) as content:
            while content.read(_CHUNK):  # at the end it compares the checksum
                pass


def _place(file: IO[bytes], member: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the content of a member begins in the file, and its bytes."""
    file.seek(member.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + sum(lengths), member.file_size
