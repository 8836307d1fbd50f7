"""Owns reading the body of an HTTP answer: no more of it than a limit, packed or unpacked, and never a part of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from dfserve.dataflow.dataset.failed import Failed

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PIECE = 1 << 18  # bytes read at a time: what is allocated before they came
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib's code for "whichever of the two it is"
# Those of the block formats have 64 KiB each: 640 MiB. What follows a member is copied for each: this bounds the time.
_MOST_MEMBERS = 10_000


def read_body(response: BaseHTTPResponse, max_bytes: int) -> bytes:
    """Return the whole body of ``response``.

    A body that is gzip or deflate, although none was asked for (some stores keep files so), is unpacked.

    Raises:
        Failed: it has, or unpacks to, more than ``max_bytes``; it is packed in another way, or badly.
        urllib3.exceptions.HTTPError: it broke off, or is shorter than announced.
    """
    announced = response.length_remaining
    if announced is not None and announced > max_bytes:
        raise Failed(f"the server announces {announced} bytes, more than max_bytes={max_bytes}", again=False)
    unpacker = _unpacker(response.headers.get("Content-Encoding", "identity").strip().lower())
    pieces, received, size = [], 0, 0
    while piece := response.read(_PIECE, decode_content=False):
        received += len(piece)
        # One byte beyond the limit is enough to know.
        piece = unpacker.unpack(piece, max_bytes - size + 1)
        size += len(piece)
        if max(received, size) > max_bytes:
            raise Failed(f"the server sends more than max_bytes={max_bytes}", again=False)
        pieces.append(piece)
    unpacker.end()
    return b"".join(pieces)


class _Unpacker(Protocol):
    def unpack(self, piece: bytes, limit: int) -> bytes: ...

    def end(self) -> None: ...


class _Nothing:
    """The unpacker of what is not packed."""

    def unpack(self, piece: bytes, _limit: int) -> bytes:
        return piece

    def end(self) -> None:
        pass


class _Zlib:
    """The unpacker of gzip and deflate, which yields ``limit`` bytes at most: a bomb is a thousand times its size.

    A body may be several members one after the other, which are unpacked as one (RFC 1952, section 2.2); zeros may
    follow them, as gzip has it.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 1

    def unpack(self, piece: bytes, limit: int) -> bytes:
        unpacked, size = [], 0
        while size < limit and (piece := self._rest(piece)):
            try:
                unpacked.append(self._stream.decompress(piece, limit - size))
            except zlib.error as error:
                raise Failed(f"the server sends damaged gzip or deflate: {error}") from error
            size += len(unpacked[-1])
            piece = self._stream.unused_data
        return b"".join(unpacked)

    def _rest(self, piece: bytes) -> bytes:
        """Return what there is to unpack of ``piece``, and begin another member if the last one is over."""
        if not self._stream.eof or not (piece := piece.lstrip(b"\0")):
            return piece
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise Failed(f"the server sends gzip of more than {_MOST_MEMBERS} members", again=False)
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        return piece

    def end(self) -> None:
        if not self._stream.eof:
            raise Failed("the server sends gzip or deflate that breaks off")


def _unpacker(encoding: str) -> _Unpacker:
    if encoding in ("", "identity"):
        return _Nothing()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Zlib()
    raise Failed(f"the server sends Content-Encoding {encoding[:100]!r} unasked", again=False)
