"""Owns reading tar files strictly: a cut or a damaged header, which tarfile takes for the end, is an error here."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dfserve.errors import StoreError

# Bytes of a header that extends the next one, with a long name or a comment: checked before it is read.
_MAX_EXTENSION = 1 << 20
_EXTENSIONS = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)
_BUFFER = 1 << 20  # bytes read ahead, and looked through at once after the end mark
_GZIP = b"\x1f\x8b"
# What tarfile and gzip raise on bad bytes; a ValueError or an OverflowError comes from numbers that are none, a
# RecursionError from a thousand headers that each extend the next.
_DAMAGE = (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class TarFile:
    """A regular file in a tar.

    Attributes:
        name: as stored, with its folders.
        size: bytes.
        sparse: whether holes stand for zeros, so that ``size`` may be far more than is stored.
        read: returns the content, if not sparse; to be called before the next file is asked for, if at all.
    """

    name: str
    size: int
    sparse: bool
    read: Callable[[], bytes]


def read_tar(path: Path) -> Iterator[TarFile]:
    """Yield the regular files of a tar, compressed with gzip or not, in their order. Links and folders are left out.

    Raises:
        StoreError: the file is empty, no tar, damaged, or ends without the end mark; it names the file, the byte and
            the last file before. Contents have no checksum in a tar, so damage within them is found only under gzip.
        OSError: it cannot be opened.
    """
    with path.open("rb", buffering=_BUFFER) as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        yield from _read(file, _Progress(path))


class _Progress:
    """How far the reading of a tar is, for errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = -1  # of the last header
        self.name = ""  # of the last file that is complete

    def error(self, what: object) -> StoreError:
        if self.offset < 0:
            return StoreError(f"{self.path} is no tar file, or damaged at its beginning: {what}")
        return StoreError(
            f"{self.path} is damaged or cut short after byte {self.offset}"
            f" (the last whole file before: {self.name or 'none'}): {what}; copy or download it again"
        )


def _read(file: IO[bytes], progress: _Progress) -> Iterator[TarFile]:
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
            name = ""
            for member in tar:
                progress.name = name  # its content is there, since something comes after it
                if member.offset <= progress.offset or member.size < 0:
                    raise tarfile.ReadError("its headers lead backwards")
                progress.offset = member.offset
                if member.isreg():
                    yield TarFile(member.name, member.size, member.issparse(), _reader(file, member, progress))
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every header
                name = member.name
        _expect_nothing_more(file)
    except _DAMAGE as error:
        raise progress.error(error) from error


def _reader(file: IO[bytes], member: tarfile.TarInfo, progress: _Progress) -> Callable[[], bytes]:
    def read() -> bytes:
        # Not through extractfile: its layers take several times as long for small files.
        try:
            file.seek(member.offset_data)
            content = file.read(member.size)
        except _DAMAGE as error:
            raise progress.error(f"{member.name} cannot be read: {error}") from error
        if len(content) < member.size:
            raise progress.error(f"{member.name} has {len(content)} of its {member.size} bytes")
        progress.name = member.name
        return content

    return read


def _expect_nothing_more(file: IO[bytes]) -> None:
    """Read on to the end, which also checks gzip's checksum; only zeros may follow the end mark."""
    while rest := file.read(_BUFFER):
        if rest.count(0) != len(rest):
            raise tarfile.ReadError("there is data after the end mark (tars joined with cat? use tar --concatenate)")


class _Header(tarfile.TarInfo):
    """A header that says what is wrong with it, where tarfile's own makes the archive end there."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without the two blocks of zeros that end a tar")
        if buf.count(0) == len(buf):
            return super().frombuf(buf, encoding, errors)  # raises what tells tarfile that this is the end
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is wrong: {error}") from error
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > _MAX_EXTENSION):
            raise tarfile.ReadError(f"a header of type {header.type!r} claims {header.size} bytes")
        return header
