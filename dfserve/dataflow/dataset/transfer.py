"""Owns one HTTP request for (the rest of) a file, and what can go wrong with it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_CHUNK = 1 << 18  # bytes: large enough to cost nothing, small enough for a smooth bar
_REDIRECTS = 5


class Failure(Exception):  # noqa: N818  # never leaves this package: it becomes part of a DownloadError's message
    """An address did not give the file.

    Attributes:
        final: another attempt would go the same way.
        wait: seconds that the server asked to wait.
    """

    def __init__(self, message: str, *, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.final = final
        self.wait = wait


@dataclass(frozen=True)
class Pace:
    """When a connection counts as dead.

    Attributes:
        connect: seconds until it is established.
        silence: seconds without a byte.
        window: seconds over which ``slowest`` bytes must come: less is a server that only pretends to send.
        slowest: bytes; 64 KiB in 60 s is a hundredth of what a poor line does.
    """

    connect: float = 10.0
    silence: float = 30.0
    window: float = 60.0
    slowest: int = 1 << 16


def transfer(part: BinaryIO, address: str, size: int, pace: Pace, count: Callable[[int], None]) -> None:
    """Append what ``part`` lacks of a file of ``size`` bytes, from ``address``.

    What is there already is never given up for what a server offers: where one cannot resume, the beginning that it
    sends is passed over.

    Args:
        part: open for appending and reading; what came stays there, unless the address turned out to have another file.
        address: http:// or https://.
        size: how many bytes the whole file has; an address that offers another number is refused.
        pace: when to give the connection up.
        count: called with each number of bytes that were appended.

    Raises:
        Failure: the file is not complete.
        ImportError: urllib3 is missing.
    """
    try:
        import urllib3
    except ImportError as error:
        raise ImportError("downloading needs urllib3: pip install 'dfserve[network]'") from error
    from dfserve.dataflow.dataset.connections import lone_client

    start = part.seek(0, os.SEEK_END)
    try:
        with lone_client(address) as client, _request(client, address, start, pace) as response:
            _append(response, part, start - _begin(response, start, size), size - start, pace, count)
    except Failure as failure:
        if failure.final:  # what this address sent is of another file
            part.truncate(start)
        raise
    except urllib3.exceptions.HTTPError as error:
        raise Failure(_reason(error)) from error


@contextmanager
def _request(client: PoolManager, address: str, start: int, pace: Pace) -> Iterator[BaseHTTPResponse]:
    """Ask for the file from byte ``start`` on, or for the whole where the server says that there is no such byte."""
    import urllib3

    from dfserve.dataflow.dataset.connections import HEADERS

    once = urllib3.Retry(
        total=_REDIRECTS, redirect=_REDIRECTS, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
    )
    timeout = urllib3.Timeout(connect=pace.connect, read=pace.silence)
    for ranged in [{"Range": f"bytes={start}-"}, {}] if start else [{}]:
        headers = HEADERS | ranged
        response = client.request("GET", address, headers=headers, preload_content=False, timeout=timeout, retries=once)
        try:
            if response.status == 416 and ranged:
                continue
            yield response
            return
        finally:
            response.close()


def _begin(response: BaseHTTPResponse, start: int, size: int) -> int:
    """Return the byte at which the body begins: 0 or ``start``."""
    from dfserve.dataflow.dataset.connections import PASSING, asked_wait

    if response.status == 200:
        first, offered = 0, response.headers.get("Content-Length", "")
    elif response.status == 206:
        first, offered = _content_range(response.headers.get("Content-Range", ""))
        if first != start:
            raise Failure(f"was asked for bytes from {start:,} on, but sends them from {first:,} on", final=True)
    else:
        raise Failure(
            f"HTTP status {response.status} {response.reason or ''}".rstrip(),
            final=response.status not in PASSING,
            wait=asked_wait(response),
        )
    if re.fullmatch(r"[0-9]{1,19}", offered) and int(offered) != size:
        raise Failure(f"has another file: {int(offered):,} bytes, not {size:,}", final=True)
    return first


def _content_range(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", text)
    if match is None:
        raise Failure(f"answers with the Content-Range {text[:100]!r}, which is none", final=True)
    return int(match[1]), match[2]


def _append(
    response: BaseHTTPResponse, part: BinaryIO, known: int, left: int, pace: Pace, count: Callable[[int], None]
) -> None:
    """Pass over ``known`` bytes of the body, and append the ``left`` that follow."""
    for data in _pieces(response, known + left, pace):
        fresh = data[known:]
        known -= len(data) - len(fresh)
        part.write(fresh)
        count(len(fresh))


def _pieces(response: BaseHTTPResponse, left: int, pace: Pace) -> Iterator[bytes]:
    """Yield the body, which has ``left`` bytes."""
    began, since, came = time.monotonic(), 0, 0
    while left:
        # read1 returns what one read of the socket gave: read would wait for the whole chunk, however slowly it comes.
        data = response.read1(_CHUNK, decode_content=False)
        if not data:
            if response.status == 200 and "Content-Length" not in response.headers:
                # The length was not told, so nothing speaks against this being all: some page, and not the file.
                raise Failure(f"has another file: {came:,} bytes, not {came + left:,}", final=True)
            raise Failure(f"cut the connection with {left:,} bytes to come")
        if len(data) > left:
            raise Failure(f"sends {len(data) - left:,} bytes too many, or more", final=True)
        yield data
        came, left, since = came + len(data), left - len(data), since + len(data)
        if time.monotonic() - began > pace.window:
            if since < pace.slowest:
                raise Failure(f"sent {since:,} bytes in {pace.window:.0f} s")
            began, since = time.monotonic(), 0


def _reason(error: Exception) -> str:
    """Return what a person needs of urllib3's error: its innermost reason."""
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error)
