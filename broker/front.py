"""Owns the broker's socket and the addresses it is bound to: what lets clients connect before the broker is loaded.

libzmq's own threads accept connections and take in what they say from the moment that an address is bound. So an
embedded broker binds first, and loads what it needs to answer (numpy, its decisions) while its clients connect.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import zmq

from dfserve import endpoints
from dfserve.broker.door import Door
from dfserve.wire.limits import Limits
from dfserve.wire.pieces import PIECE

# libzmq's own threads: taking in and handing out go on at once (with one thread a third less arrives; with two, now and
# then both ends of the traffic share one). Idle ones cost nothing.
IO_THREADS = 4
CURVE_BYTES = 64  # what encryption adds to a frame, at most (33 bytes are its nonce, its checksum and flags)
LINGER = 2000  # milliseconds for what is still to be sent at the end
# A remote machine that vanishes is noticed by the kernel: it answers for a stopped process, which must not be given up,
# but not for a machine that is gone.
KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 20, zmq.TCP_KEEPALIVE_INTVL: 5, zmq.TCP_KEEPALIVE_CNT: 4}


class Front:
    """A bound socket and its door. It belongs to the broker's thread. A context manager; closing twice is harmless.

    Args:
        binds: addresses to bind.
        limits: what one message may hold.
        keys: the folder of the keys that are asked for on tcp; None: everybody is admitted.

    Attributes:
        socket: the ROUTER.
        refused: connections that were turned away, by reason.
        endpoints: what ``binds`` became, with ports resolved.

    Raises:
        KeysError: the keys cannot be used.
        AddressInUse: naming the process that holds an address.
        EndpointError: an address that cannot be bound.
    """

    def __init__(self, binds: Sequence[str], limits: Limits, keys: Path | None = None) -> None:
        self.endpoints: list[str] = []
        self.refused: Counter[str] = Counter()
        self._door: Door | None = None
        self._closed = False
        self._context = zmq.Context(IO_THREADS)
        self.socket = self._context.socket(zmq.ROUTER)
        try:
            self._open(binds, limits, keys)
        except BaseException:
            self.close()
            raise

    def _open(self, binds: Sequence[str], limits: Limits, keys: Path | None) -> None:
        options = {
            zmq.ROUTER_MANDATORY: 1,  # a send to nobody is an error, which is how the end of a connection is seen
            zmq.ROUTER_HANDOVER: 1,  # a client that comes back takes over from its own dead connection
            zmq.SNDHWM: 0,  # credit bounds what is sent; a full queue would drop silently
            zmq.MAXMSGSIZE: max(PIECE, limits.max_body) + (CURVE_BYTES if keys is not None else 0),
            zmq.LINGER: LINGER,
            **KEEPALIVE,
        }
        for option, value in options.items():
            self.socket.setsockopt(option, value)
        self._door = door = Door(self._context, self.socket, keys, self.refused)
        parsed = [endpoints.parse(address) for address in binds]
        bound: dict[int, str] = {}
        for number in sorted(range(len(parsed)), key=lambda at: parsed[at].scheme):  # ipc first: it has no lock
            if parsed[number].scheme == "tcp":
                door.lock()
            bound[number] = endpoints.bind(self.socket, parsed[number])
            self.endpoints = [bound[at] for at in sorted(bound)]

    @property
    def door(self) -> Door:
        """Who is admitted; its sockets are to be polled too."""
        assert self._door is not None
        return self._door

    def close(self) -> None:
        """Close the socket, and remove its files; what was sent is given two seconds to leave."""
        if self._closed:
            return
        self._closed = True
        if self._door is not None:
            self._door.close()
        self.socket.close()
        if self._door is not None:
            self._door.close_zap()
        self._context.term()
        for endpoint in self.endpoints:
            parsed = endpoints.parse(endpoint)
            if parsed.scheme == "ipc" and not parsed.abstract and parsed.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(parsed.path)  # noqa: PTH108  # a socket's name, not a file of ours to read

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
