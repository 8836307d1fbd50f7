"""Owns this process's HTTP client: connections that are kept open, and waits that end at the request's deadline.

urllib3's own timeouts are for one wait each: a server that sends a byte now and then, in its headers or in the body, or
a name with many dead addresses, prolongs a request without end. Here every wait is cut to what is left.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from dfserve.version import __version__

_HOSTS = 32  # whose connections are kept; beyond, the least recently used host's are closed
# Kept for each host; more threads than that open a new one for every item. 32 hosts x 16 threads, the default, are 512
# open sockets at worst, and many systems allow a process 1024 files.
_KEPT = 64
# Unasked, a server should not compress; images are compressed already.
HEADERS = {"User-Agent": f"dfserve/{__version__}", "Accept-Encoding": "identity"}
# Statuses after which another try may go better: too slow, too early, too often, the server's own trouble.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Deadline:
    """The end of the time that an item may take."""

    def __init__(self, seconds: float, silence: float) -> None:
        """End ``seconds`` from now; a single wait for the network takes ``silence`` seconds at most."""
        self._silence = silence
        self._begin = time.monotonic()
        self._end = self._begin + seconds

    def passed(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._begin

    def left(self) -> float:
        """Return the seconds until the end; not positive when it is over."""
        return self._end - time.monotonic()

    def wait(self) -> float:
        """Return how many seconds a wait that begins now may take.

        Raises:
            TimeoutError: the time is over.
        """
        left = self.left()
        if left <= 0:
            raise TimeoutError("the item's time is over")
        return min(left, self._silence)


class _Thread(threading.local):
    """What the request that this thread makes is bound by."""

    deadline = Deadline(30.0, 10.0)  # replaced for every request


_thread = _Thread()


@contextmanager
def answer(url: str, deadline: Deadline) -> Iterator[urllib3.BaseHTTPResponse]:
    """Request ``url`` with GET, and hand out the answer with its body unread.

    The body is to be read by the same thread, inside the ``with``. A connection whose body was read to its end is used
    again; otherwise it is closed. Redirects are not followed.

    Args:
        url: http:// or https://.
        deadline: no wait, for the name's addresses excepted, lasts longer.

    Raises:
        urllib3.exceptions.HTTPError: there is no answer, or its body broke off or did not come in time.
        ValueError: ``url`` is malformed.
    """
    _thread.deadline = deadline
    wait = deadline.wait()
    parts = urlsplit(url)
    response = _client(parts.scheme, parts.hostname or "").request(
        "GET",
        url,
        headers=HEADERS,
        preload_content=False,
        redirect=False,
        retries=False,
        timeout=urllib3.Timeout(connect=wait, read=wait),
    )
    try:
        yield response
    finally:
        response.close()  # does nothing to a connection that was given back


class _Patient(io.RawIOBase):
    """The reading end of a connection, where each wait is cut to what the deadline leaves."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_thread.deadline.wait())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response of which no line of the header nor piece of the body is waited for beyond the deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Patient(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        """Try the addresses of the host in turn. urllib3 would give each of them the whole timeout."""
        failure = OSError(f"{self.host} has no address")
        address: Any
        for *_, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                sock = socket.create_connection(address[:2], _thread.deadline.wait())
            except OSError as error:
                failure = error
                continue
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            return sock
        raise failure


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


# By process, because a forked child must not share connections. What a child inherits stays unused, and open: to close
# it would take locks that a thread may have held when the process forked.
_clients: dict[tuple[int, str | None], urllib3.PoolManager] = {}


def _client(scheme: str, host: str) -> urllib3.PoolManager:
    """Return this process's client for ``host``; another one where the environment names a proxy for it."""
    proxy = _proxy_for(scheme, host, _proxies())
    key = os.getpid(), proxy
    client = _clients.get(key)
    if client is None:
        client = _new_client(proxy)
        client.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        # Threads that come here at once agree on one: setdefault is atomic.
        client = _clients.setdefault(key, client)
    return client


def lone_client(url: str) -> urllib3.PoolManager:
    """Return a client for one download, to be closed after it; its waits are urllib3's own."""
    parts = urllib3.util.parse_url(url)
    return _new_client(_proxy_for(parts.scheme or "http", parts.host or "", getproxies()))


def asked_wait(response: urllib3.BaseHTTPResponse) -> float:
    """Return the seconds that the server asks to wait with Retry-After, a number or a date; 0 if it does not."""
    try:
        return float(urllib3.Retry().get_retry_after(response) or 0.0)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # what cannot be read was not asked
        return 0.0


def _proxy_for(scheme: str, host: str, proxies: dict[str, str]) -> str | None:
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy and not proxy_bypass(host) else None


def _new_client(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(_HOSTS, maxsize=_KEPT)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user = urllib3.util.parse_url(proxy).auth
    secret = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
    return urllib3.ProxyManager(proxy, _HOSTS, proxy_headers=secret, maxsize=_KEPT)


@lru_cache(maxsize=1)
def _proxies() -> dict[str, str]:
    """Return the proxies of http_proxy, https_proxy, all_proxy and no_proxy, as they were at the first request."""
    return getproxies()
