"""Owns mapping the arrays of an uncompressed ``.npz`` into memory, after every checksum in it was found right."""

from __future__ import annotations

import errno
import mmap
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from dfserve.dataflow.serialize.npy import view_npy
from dfserve.errors import StoreError

_Array = np.ndarray[Any, np.dtype[Any]]
_CHUNK = 1 << 20  # bytes read at once for the checksums
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and of its extra field, which follow it


def map_npz(path: Path, *, check: bool) -> dict[str, _Array]:
    """Return the arrays of a file by their names, as read-only views of its pages; they outlive the open file.

    Args:
        path: the file.
        check: read it all to compare the checksums (about 1 s for each GB); without, it was checked before.

    Raises:
        StoreError: it is no zip, damaged, compressed, or holds something else than arrays; it names the file.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if check:
                    _check(archive)
                pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                return {
                    member.filename.removesuffix(".npy"): _array(file, pages, member) for member in archive.infolist()
                }
        except Exception as error:
            # zipfile raises a dozen kinds on bad bytes; what the system says has a number, and EINVAL is a seek to a
            # place that bad bytes named.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise StoreError(
                f"{path} is damaged, cut short or no .npz of dfserve: {type(error).__name__}: {error}; save or copy it"
                " again"
            ) from error


def _check(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed (tensorpack's are, and pickled: they are not loaded)")
        with archive.open(member) as content:
            while content.read(_CHUNK):  # at the end it compares the checksum
                pass


def _array(file: IO[bytes], pages: memoryview, member: zipfile.ZipInfo) -> _Array:
    file.seek(member.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + sum(lengths)
    content = pages[start : start + member.file_size]
    try:
        return view_npy(content)
    except ValueError as error:
        raise ValueError(f"{member.filename}: {error}") from error
