"""Owns the plain sender: a PUSH socket that sends each datapoint of a dataflow as one frame.

There is no broker and there are no guarantees: a connection that breaks loses what was in flight, nobody notices a
dead receiver, and with several receivers nobody knows who gets what. It is here to speak to other software.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

import zmq

from dfserve import endpoints
from dfserve.errors import ConfigError

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0  # between two log lines of one wait
FAILED_LINGER = 1000  # milliseconds to get rid of what was sent before the dataflow raised


class Source(Protocol):
    """What can be sent: tensorpack's DataFlow as well as dfserve's."""

    def reset_state(self) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...


def send_plain(
    df: Source, addr: str, *, hwm: int, dumps: Callable[[Any], bytes], bind: bool, passes: int | None
) -> int:
    """Send the datapoints of ``df`` and return how many; with ``passes=None`` never return.

    After the last pass it waits until all is in the kernel's hands, for ever if nobody connects; it logs every 10 s
    what it waits for. No guarantees: see the module.

    Args:
        df: reset once, then iterated ``passes`` times.
        addr: as in :func:`dfserve.endpoints.parse`.
        hwm: datapoints that the socket holds for each receiver, at least 1.
        dumps: makes the frame, e.g. ``dfserve.formats.plain_msgpack.dumps``.
        bind: bind ``addr`` instead of connecting to it.
        passes: at least 1, or None for ever.

    Raises:
        EndpointError: the address cannot be used.
        EncodeError: a datapoint cannot travel in this format.
        ConfigError: ``hwm`` or ``passes`` is below 1, or a pass that would be repeated for ever is empty.
    """
    if hwm < 1 or (passes is not None and passes < 1):
        raise ConfigError(
            f"hwm is {hwm} and passes is {passes}; both must be at least 1 (passes=None repeats for ever)"
        )
    ep = endpoints.parse(addr)
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    try:
        socket.set_hwm(hwm)
        where = _attach(socket, ep, bind)
        df.reset_state()
        sent = _send_passes(df, socket, where, dumps, passes)
    except BaseException:
        context.destroy(linger=FAILED_LINGER)
        raise
    _drain(context, socket, where)
    return sent


def _attach(socket: zmq.Socket[bytes], ep: endpoints.Endpoint, bind: bool) -> str:
    if bind:
        where = endpoints.bind(socket, ep)
        log.info("sends plain datapoints to whoever connects to %s", where)
        return where
    endpoints.connect(socket, ep)
    log.info("sends plain datapoints to %s", ep)
    return ep.text


def _send_passes(
    df: Source, socket: zmq.Socket[bytes], where: str, dumps: Callable[[Any], bytes], passes: int | None
) -> int:
    sent = 0
    for _ in count() if passes is None else range(passes):
        before = sent
        for datapoint in df:
            _send(socket, dumps(datapoint), where)
            sent += 1
        if passes is None and sent == before:
            raise ConfigError(
                "the dataflow yielded no datapoint in a whole pass; repeating it for ever would send nothing"
            )
    return sent


def _send(socket: zmq.Socket[bytes], frame: bytes, where: str) -> None:
    began = time.monotonic()
    while not _try_send(socket, frame):
        if not socket.poll(int(REPORT_SECONDS * 1000), zmq.POLLOUT):
            log.warning("has waited %.0f s for a receiver at %s to take a datapoint", time.monotonic() - began, where)


def _try_send(socket: zmq.Socket[bytes], frame: bytes) -> bool:
    try:
        socket.send(frame, zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return False
    return True


def _drain(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], where: str) -> None:
    """Close when all is sent. In a thread, because libzmq waits without saying so and without hearing of Ctrl-C."""
    socket.close(linger=-1)
    closing = threading.Thread(target=context.term, name="dfserve-plain-drain", daemon=True)
    closing.start()
    began = time.monotonic()
    while True:
        closing.join(REPORT_SECONDS)
        if not closing.is_alive():
            return
        waited = time.monotonic() - began
        log.warning("has waited %.0f s for a receiver at %s to take the last datapoints", waited, where)
