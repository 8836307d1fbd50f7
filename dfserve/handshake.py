"""Owns how a client learns that a broker will not have it: libzmq itself would try again, or stop trying, in silence.

libzmq's monitor says that a handshake failed, and often no more: who closes first is chance. So greetings, which name
each side's mechanism in the clear, are exchanged once more: both sides can then tell a wrong key from none.
"""

from __future__ import annotations

import contextlib
import secrets
import socket as sockets
import struct
import time
from collections.abc import Iterator

import zmq

from dfserve.endpoints import Endpoint
from dfserve.errors import KeysError
from dfserve.keys import ClientKeys

SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
NO_DETAIL = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
AUTH = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
NOT_ADMITTED = 400  # the status of ZAP
CRYPTOGRAPHIC = 0x11000001  # libzmq's ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
MISMATCH = 0x11000002  # libzmq's ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
FAILURES = 3  # handshakes in a row that failed without a reason: one may be a broker that was killed in it
ASK = 2.0  # seconds for the greeting; a broker gives it without its Python
SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"  # of ZMTP 3
FIRST, NAMED, GREETING = 11, slice(12, 32), 64  # bytes of a greeting: before it is answered, its mechanism, all of it


class Monitor:
    """What libzmq says of a socket's handshakes. It belongs to the socket's thread; close it before the socket.

    Its queue has no limit, because libzmq's I/O thread would wait for room in it; there are few events.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        self._watched = socket
        where = f"inproc://handshakes-{secrets.token_hex(8)}"
        socket.monitor(where, SUCCEEDED | NO_DETAIL | PROTOCOL | AUTH)
        self.socket = context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(where)

    def events(self) -> Iterator[tuple[int, int]]:
        """Iterate over the events since the last call, each with its value."""
        with contextlib.suppress(zmq.Again):
            while True:
                event, value = struct.unpack("=HI", self.socket.recv_multipart(zmq.NOBLOCK)[0])
                yield event, value

    def close(self) -> None:
        """Stop."""
        self._watched.disable_monitor()
        self.socket.close()


class Handshakes:
    """Watches a client's handshakes with a broker over tcp.

    Args:
        monitor: of the client's socket.
        endpoint: the broker's.
        keys: what the client presents; None: nothing.
    """

    def __init__(self, monitor: Monitor, endpoint: Endpoint, keys: ClientKeys | None) -> None:
        self.monitor = monitor
        self._endpoint = endpoint
        self._keys = keys
        self._failed = 0  # in a row, without a reason

    def check(self) -> None:
        """Look at what has happened since the last look; waits up to two seconds if that was a failure.

        Raises:
            KeysError: the broker will never have this client as it is; says why, and what to do.
        """
        failed = mismatch = False
        for event, value in self.monitor.events():
            if event == AUTH:
                raise KeysError(self._not_admitted(value))
            failed = event != SUCCEEDED
            self._failed = self._failed + 1 if failed else 0
            mismatch |= event == PROTOCOL and value == MISMATCH
        if not failed:
            return
        own = b"NULL" if self._keys is None else b"CURVE"
        mechanism = greet(self._endpoint, own)
        if mismatch or mechanism not in (None, own):
            raise KeysError(self._other_mechanism())
        if mechanism is not None and self._keys is not None and self._failed >= FAILURES:
            raise KeysError(
                f"the broker at {self._endpoint} has another key than the one that {self._keys.path} pins: it is "
                "another broker, or its keys were made anew. If that is meant, make this client a new file there with "
                "`dfserve keys`, and copy it here"
            )

    def _not_admitted(self, status: int) -> str:
        assert self._keys is not None
        if status != NOT_ADMITTED:
            return f"the broker at {self._endpoint} cannot read its own keys; its log says why"
        return (
            f"the broker at {self._endpoint} does not admit the key of {self._keys.path}: it was revoked, or never "
            "admitted there. Make another on the broker's machine with `dfserve keys FOLDER NAME`, and copy "
            "FOLDER/clients/NAME.secret here"
        )

    def _other_mechanism(self) -> str:
        if self._keys is None:
            return (
                f"the broker at {self._endpoint} asks for a key, and none was given. Make one on its machine with "
                "`dfserve keys FOLDER NAME`, copy FOLDER/clients/NAME.secret here, and pass it: --keys NAME.secret, "
                "or keys= in Python"
            )
        return (
            f"the broker at {self._endpoint} has no keys, so nothing would be encrypted or checked, and nothing was "
            f"sent. Start it with --keys FOLDER (in Python: keys=), or leave out {self._keys.path} here"
        )


def greet(endpoint: Endpoint, mechanism: bytes) -> bytes | None:
    """Exchange greetings with who listens at a tcp address, naming a security mechanism, and go.

    Returns:
        The other side's mechanism, e.g. ``b"CURVE"``; None if nobody says one.
    """
    ours = SIGNATURE + b"\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)
    theirs, deadline = b"", time.monotonic() + ASK
    with contextlib.suppress(OSError), sockets.create_connection((endpoint.host, endpoint.port), ASK) as connection:
        connection.sendall(ours[:FIRST])
        while len(theirs) < GREETING and time.monotonic() < deadline and (more := connection.recv(GREETING)):
            theirs += more
        connection.sendall(ours[FIRST:])
        connection.shutdown(sockets.SHUT_WR)
        connection.recv(GREETING)  # until it is read, and the other side closes
    return theirs[NAMED].rstrip(b"\0") if len(theirs) >= GREETING and theirs[:1] == SIGNATURE[:1] else None
