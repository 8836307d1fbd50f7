"""Owns the small HTTP server for /metrics, /livez and /readyz of a broker or a producer.

It waits for no client, so that a producer's supervisor, which forks and so has no thread, can serve from its own loop:
each turn reads and writes what can be. A client that is slow holds up nobody, and is cut off.
"""

from __future__ import annotations

import contextlib
import http
import logging
import os
import socket
import time
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, PollSelector

from dfserve.errors import AddressInUse, ConfigError

log = logging.getLogger("dfserve.http")

TIMEOUT = 5.0  # seconds for all of a connection, from its first byte to its last: who is slower is cut off
CONNECTIONS = 64  # at a time; if there are more, the oldest is cut off: an honest one takes milliseconds
REQUEST = 16 << 10  # bytes of a request; a scraper's has a few hundred
CHUNK = 4096  # bytes that are read at a time
PAUSE = 0.05  # seconds
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT = "text/plain"


class Health:
    """What the server answers with.

    Args:
        metrics: returns the metrics page, in Prometheus' text format.
        alive: returns None, or what is wrong (then /livez answers 503 and a supervisor should restart us).
        ready: likewise for /readyz: whether traffic may be sent here.
    """

    def __init__(
        self, metrics: Callable[[], bytes], alive: Callable[[], str | None], ready: Callable[[], str | None]
    ) -> None:
        self.metrics, self.alive, self.ready = metrics, alive, ready

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return (status, content type, body) for a path."""
        path = path.partition("?")[0]
        if path == "/metrics":
            return 200, METRICS_TYPE, self.metrics()
        probes = {"/livez": self.alive, "/readyz": self.ready}
        if path not in probes:
            return 404, TEXT, b"there are /metrics, /livez and /readyz\n"
        wrong = probes[path]()
        return (200, TEXT, b"ok\n") if wrong is None else (503, TEXT, wrong.encode() + b"\n")

    def respond(self, received: bytes) -> bytes | None:
        """Return the response to a request of which this much was received; None if more of it has to come."""
        if b"\r\n\r\n" not in received and b"\n\n" not in received:
            large = b"a request may have %d bytes\n" % REQUEST
            return _response(431, TEXT, large) if len(received) > REQUEST else None
        words = received.partition(b"\n")[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):
            return _response(400, TEXT, b"this is no HTTP request\n")
        if words[0] != b"GET":
            return _response(501, TEXT, b"there is GET only\n")
        try:
            return _response(*self.answer(words[1].decode("latin-1")))
        except Exception:  # whatever it is, a page that fails must not end who serves it
            log.exception("%r cannot be answered", words[1])
            return _response(500, TEXT, b"this failed, see the log\n")


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.0 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    """One client: its request as far as it has come, then what is left of the response."""

    def __init__(self, client: socket.socket, respond: Callable[[bytes], bytes | None]) -> None:
        client.setblocking(False)
        self.socket = client
        self.deadline = time.monotonic() + TIMEOUT
        self._respond = respond
        self._request = b""
        self._response: memoryview | None = None
        self._ended = False  # the client has said all that it will

    def advance(self, events: int) -> int:
        """Read and write what can be without waiting; returns the events to wait for, 0 when it is over.

        Raises:
            OSError: the client is gone.
        """
        if events & EVENT_READ:
            self._read()
        if self._response:
            self._write()
        return (0 if self._ended else EVENT_READ) | (EVENT_WRITE if self._response else 0)

    def _read(self) -> None:
        data = self.socket.recv(CHUNK)
        self._ended = not data
        if self._response is None:  # what comes after the request is read all the same: unread, it would reset all
            self._request += data
            response = self._respond(self._request)
            self._response = None if response is None else memoryview(response)

    def _write(self) -> None:
        assert self._response is not None
        with contextlib.suppress(BlockingIOError):
            self._response = self._response[self.socket.send(self._response) :]
        if not self._response:
            self.socket.shutdown(socket.SHUT_WR)


class Server:
    """Serves as often as `turn` is called. A context manager.

    Attributes:
        port: that it is bound to.
        selector: what it waits for. What others register there, without data, ends a turn's wait too.
    """

    def __init__(self, listener: socket.socket, health: Health) -> None:
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        self.selector = PollSelector()  # not epoll, of which a forked worker would share ours
        self.selector.register(listener, EVENT_READ)
        self._listener = listener
        self._health = health
        self._connections: list[_Connection] = []  # the oldest first

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def turn(self, timeout: float) -> None:
        """Wait, for ``timeout`` seconds at most, and do what can be done then without waiting."""
        for key, events in self.selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.data is not None:
                self._advance(key.data, events)
        now = time.monotonic()
        surplus = len(self._connections) - CONNECTIONS
        for number, connection in enumerate(self._connections[:]):
            if number < surplus or now > connection.deadline:
                self._drop(connection)

    def close(self) -> None:
        """Close its files here; those of a process that it was forked from stay open."""
        for connection in self._connections:
            connection.socket.close()
        self._listener.close()
        self.selector.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # this process may have too many files open. The client is still there, and ends the next wait
            time.sleep(PAUSE)
            return
        connection = _Connection(client, self._health.respond)
        self._connections.append(connection)
        self.selector.register(client, EVENT_READ, connection)

    def _advance(self, connection: _Connection, events: int) -> None:
        try:
            wanted = connection.advance(events)
        except OSError:
            wanted = 0
        if wanted:
            self.selector.modify(connection.socket, wanted, connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        self.selector.unregister(connection.socket)
        connection.socket.close()


def make_server(host: str, port: int, health: Health) -> Server:
    """Bind an HTTP server, of which someone has to call `Server.turn`; ``host`` "": all addresses, IPv4 and IPv6.

    Raises:
        AddressInUse: the port is taken.
        ConfigError: it is no port.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listener = socket.create_server((host, port))
    except OverflowError:
        raise ConfigError(f"metrics port {port} is not a number from 0 (any free port) to 65535") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)  # its own text has Python's way to write the address, too
        raise AddressInUse(
            f"metrics port {port} cannot be bound: {why}; give another --metrics-port (metrics_port=)"
        ) from None
    return Server(listener, health)
