"""Owns one HTTP request for (the rest of) a file, and what can go wrong with it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dfserve.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_CHUNK = 1 << 18  # bytes: large enough to cost nothing, small enough for a smooth bar
_REDIRECTS = 5
# Statuses after which another attempt may go better: too early, too often, the server's own trouble.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


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


def transfer(part: BinaryIO, address: str, size: int, pace: Pace, count: Callable[[int], None]) -> int:
    """Append what ``part`` lacks of a file of ``size`` bytes, from ``address``; from byte 0 if it cannot be resumed.

    Args:
        part: open for appending and reading; what came stays there whatever happens.
        address: http:// or https://.
        size: how many bytes the whole file has; an address that offers another number is refused.
        pace: when to give the connection up.
        count: called with each number of bytes that came.

    Returns:
        The byte at which the server began.

    Raises:
        Failure: the file is not complete.
        ImportError: urllib3 is missing.
    """
    try:
        import urllib3
    except ImportError as error:
        raise ImportError("downloading needs urllib3: pip install 'dfserve[network]'") from error
    start = part.seek(0, os.SEEK_END)
    try:
        with _client(address) as client:
            response = _request(client, address, start, pace)
            try:
                start = _begin(response, part, start, size)
                _copy(response, part, size - start, pace, count)
            finally:
                response.close()
    except urllib3.exceptions.HTTPError as error:
        raise Failure(_reason(error)) from error
    return start


def _client(address: str) -> PoolManager:
    """Return a client that goes through the proxy which the environment names, if it names one."""
    from urllib.parse import unquote
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    url = urllib3.util.parse_url(address)
    proxy = getproxies().get(url.scheme or "http")
    if not proxy or proxy_bypass(url.host or ""):
        return urllib3.PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers)


def _request(client: PoolManager, address: str, start: int, pace: Pace) -> BaseHTTPResponse:
    import urllib3

    headers = {"User-Agent": f"dfserve/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    once = urllib3.Retry(
        total=_REDIRECTS, redirect=_REDIRECTS, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
    )
    timeout = urllib3.Timeout(connect=pace.connect, read=pace.silence)
    return client.request("GET", address, headers=headers, preload_content=False, timeout=timeout, retries=once)


def _begin(response: BaseHTTPResponse, part: BinaryIO, start: int, size: int) -> int:
    """Return the byte at which the body begins, with ``part`` cut to it."""
    if response.status == 200:
        offered, start = response.headers.get("Content-Length"), 0
        part.truncate(0)
    elif response.status == 206:
        first, offered = _content_range(response.headers.get("Content-Range", ""))
        if first != start:
            raise Failure(f"was asked for bytes from {start:,} on, but sends them from {first:,} on", final=True)
    elif response.status == 416:  # our half is longer than its whole
        part.truncate(0)
        raise Failure(f"HTTP status 416: has no byte {start:,}")
    else:
        wait = response.headers.get("Retry-After", "")
        raise Failure(
            f"HTTP status {response.status} {response.reason or ''}".rstrip(),
            final=response.status not in _PASSING,
            wait=float(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else 0.0,
        )
    if offered is not None and offered.isdecimal() and int(offered) != size:
        part.truncate(0)
        raise Failure(f"has another file: {int(offered):,} bytes, not {size:,}", final=True)
    return start


def _content_range(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", text)
    if match is None:
        raise Failure(f"answers with the Content-Range {text[:100]!r}, which is none", final=True)
    return int(match[1]), match[2]


def _copy(response: BaseHTTPResponse, part: BinaryIO, left: int, pace: Pace, count: Callable[[int], None]) -> None:
    """Append ``left`` bytes of the body."""
    began, since = time.monotonic(), 0
    while left:
        # read1 returns what one read of the socket gave: read would wait for the whole chunk, however slowly it comes.
        data = response.read1(_CHUNK, decode_content=False)
        if not data:
            raise Failure(f"cut the connection with {left:,} bytes to come")
        if len(data) > left:
            raise Failure(f"sends {len(data) - left:,} bytes too many, or more", final=True)
        part.write(data)
        count(len(data))
        left, since = left - len(data), since + len(data)
        if time.monotonic() - began > pace.window:
            if since < pace.slowest:
                raise Failure(f"sent {since:,} bytes in {pace.window:.0f} s")
            began, since = time.monotonic(), 0


def _reason(error: Exception) -> str:
    """Return what a person needs of urllib3's error: its innermost reason."""
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error)
