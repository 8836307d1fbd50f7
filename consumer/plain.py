"""Owns the plain receiver: PULL sockets that take each frame as one datapoint.

There is no broker and there are no guarantees: what a broken connection loses is not sent again, the end of a sender's
data is not told from its death, and several receivers share the data as libzmq deals it out. It is here to listen to
other software.
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import zmq

from dfserve import endpoints
from dfserve.consumer.session import check_owner
from dfserve.errors import ConfigError, DfserveError, Starved, WireError

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0  # between two log lines of one wait
MAX_FRAME = 4 << 30  # bytes; libzmq drops a peer that announces more before it allocates


@dataclass
class _Line:
    """One socket and what came over it."""

    socket: zmq.Socket[bytes]
    endpoint: str
    since: float  # monotonic seconds: of the last datapoint, or of the opening
    received: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.since
        text = (
            f"{self.endpoint} (silent for {seconds:.1f} s"
            if self.received
            else f"{self.endpoint} (nothing in {seconds:.1f} s"
        )
        return text + (f", {self.bad.total()} bad messages: {dict(self.bad)})" if self.bad else ")")


class PlainReceiver:
    """Receives plain datapoints on one or two addresses. A context manager. No guarantees: see the module.

    A message that ``loads`` refuses is counted, logged the first time for each address, and skipped. One that nobody
    closes is closed when it is not used any more.

    Attributes:
        waited: seconds spent in `receive` waiting for data so far.
        endpoints: the one or two addresses as they are bound (with the real port in place of 0) or connected.
    """

    def __init__(
        self,
        addr1: str,
        addr2: str | None = None,
        *,
        hwm: int,
        bind: bool,
        loads: Callable[[memoryview], Any],
        timeout: float | None,
    ) -> None:
        """Open the sockets.

        Args:
            addr1, addr2: as in :func:`dfserve.endpoints.parse`.
            hwm: datapoints that a socket holds for each sender, at least 1.
            bind: bind the addresses instead of connecting to them.
            loads: reads a frame or raises WireError, e.g. ``dfserve.formats.plain_msgpack.loads``.
            timeout: seconds that :meth:`receive` waits for a datapoint; None waits for ever, and logs that it does.

        Raises:
            EndpointError: an address cannot be used.
            ConfigError: ``hwm`` is below 1.
        """
        if hwm < 1:
            raise ConfigError(f"hwm is {hwm}; it counts datapoints in flight and must be at least 1")
        self._loads = loads
        self._timeout = timeout
        self.waited = 0.0
        self._pid = os.getpid()
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        sockets: list[zmq.Socket[bytes]] = []
        # Not left to pyzmq: where a context is collected before its sockets, it waits for them for ever.
        self._finalizer = weakref.finalize(self, _close, self._pid, self._context, sockets)
        try:
            self._lines = [self._open(addr, hwm, bind, sockets) for addr in (addr1, addr2) if addr is not None]
        except BaseException:
            self.close()
            raise
        self._ready: deque[_Line] = deque()
        self.endpoints = tuple(line.endpoint for line in self._lines)

    @property
    def received(self) -> tuple[int, ...]:
        """Datapoints received so far, for each address."""
        return tuple(line.received for line in self._lines)

    @property
    def bad_messages(self) -> Counter[str]:
        """Messages skipped so far, by the reason of their WireError."""
        return sum((line.bad for line in self._lines), Counter())

    def receive(self) -> Any:
        """Return the next datapoint, taking turns between the addresses.

        Raises:
            Starved: none came within ``timeout`` seconds of this call; the message names the silent addresses.
            ConfigError: this is a forked child of the process that made it.
        """
        check_owner(self._pid)
        if self._context.closed:
            raise DfserveError("this receiver is closed")
        began = time.monotonic()
        while True:
            line = self._next(began)
            try:
                datapoint = self._read(line)
            except WireError as error:
                self._count_bad(line, error)
                self._check_time(began)  # a flood of bad messages must not hold us for ever
                continue
            line.received += 1
            line.since = time.monotonic()
            return datapoint

    def close(self) -> None:
        """Close the sockets; what they still hold is lost. Closing twice is allowed."""
        self._finalizer()

    def __enter__(self) -> PlainReceiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, addr: str, hwm: int, bind: bool, sockets: list[zmq.Socket[bytes]]) -> _Line:
        ep = endpoints.parse(addr)
        socket = self._context.socket(zmq.PULL)
        sockets.append(socket)
        socket.set_hwm(hwm)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        if bind:
            where = endpoints.bind(socket, ep)
        else:
            endpoints.connect(socket, ep)
            where = ep.text
        self._poller.register(socket, zmq.POLLIN)
        return _Line(socket, where, time.monotonic())

    def _next(self, began: float) -> _Line:
        """The line to read from next. Polled only when all that were ready had their turn, so that they alternate."""
        while not self._ready:
            left = math.inf if self._timeout is None else max(0.0, began + self._timeout - time.monotonic())
            found = self._poll(min(left, REPORT_SECONDS))
            self._ready.extend(line for line in self._lines if line.socket in found)
            if not self._ready:
                self._check_time(began)
                if left > REPORT_SECONDS:
                    log.warning(
                        "has waited %.0f s for a datapoint; missing: %s", time.monotonic() - began, self._missing()
                    )
        return self._ready.popleft()

    def _poll(self, seconds: float) -> dict[Any, int]:
        started = time.monotonic()
        try:
            return dict(self._poller.poll(math.ceil(seconds * 1000)))
        finally:
            self.waited += time.monotonic() - started

    def _check_time(self, began: float) -> None:
        waited = time.monotonic() - began
        if self._timeout is not None and waited >= self._timeout:
            raise Starved(f"no datapoint within {waited:.1f} s; missing: {self._missing()}")

    def _missing(self) -> str:
        return " and ".join(str(line) for line in self._lines)

    def _read(self, line: _Line) -> Any:
        frames = line.socket.recv_multipart(copy=False)
        if len(frames) != 1:
            raise WireError("frames", f"{len(frames)} frames instead of one: the sender speaks another protocol")
        return self._loads(frames[0].buffer)

    def _count_bad(self, line: _Line, error: WireError) -> None:
        if not line.bad:
            log.warning(
                "skips a bad message at %s (%s): %s; further ones are only counted", line.endpoint, error.reason, error
            )
        line.bad[error.reason] += 1


def _close(pid: int, context: zmq.Context[zmq.Socket[bytes]], _sockets: list[zmq.Socket[bytes]]) -> None:
    """Close all, which are kept until then; not what a forked child has of its parent."""
    if os.getpid() == pid:
        context.destroy(linger=0)
