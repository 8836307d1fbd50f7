"""Owns a client's connection to the broker: one DEALER socket, its options, and messages in and out of it."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from dfserve import endpoints
from dfserve.frames import receive_frame, send_frames
from dfserve.handshake import Handshakes, Monitor
from dfserve.keys import ClientKeys
from dfserve.sharing.blocks import SharedBlocks
from dfserve.sharing.machine import machine
from dfserve.wire import messages as m
from dfserve.wire.envelope import Unsealing

log = logging.getLogger("dfserve.client")

RECONNECT_MS = 50  # first wait between attempts to connect
# Longest: a broker that comes, or comes back, is found within this, which is less than it takes from binding to
# answering. An attempt costs a packet, and by name a question to a name server, of which hundreds of workers ask fewer.
RECONNECT_MAX_MS = 100
RECONNECT_MAX_BY_NAME_MS = 250
LINGER_MS = 2000  # for a goodbye that is still to be sent
HEARTBEAT_MS = 3000  # how often libzmq asks whether the broker lives
HEARTBEAT_TIMEOUT_MS = 10_000  # how long it waits for the answer, which libzmq gives without the broker's Python


class Connection:
    """A socket to the broker. It belongs to the thread that made it. A context manager.

    It has a fresh routing id, and each time a connection is made (again) libzmq sends an empty message, so that the
    broker asks who we are.

    Args:
        address: one address of the broker.
        shares: take blocks through memory that is shared with the broker, where that is on this machine.
        ttl: seconds of silence after which the *broker's* side drops the connection; 0 leaves it to the kernel, which
            answers for a stopped process too. Workers set it, trainers do not: a paused trainer is not dead.
        keys: what it presents over tcp, and the broker's key that it wants to see. Not used over ipc.
        freed: for a worker that shares its memory: called with what the broker says it has done with of that.

    Attributes:
        socket: to be polled; `begin` may replace it.
    """

    def __init__(
        self,
        address: str,
        ttl: float = 0.0,
        *,
        shares: bool = False,
        keys: ClientKeys | None = None,
        freed: Callable[[bytes], object] | None = None,
    ) -> None:
        self._endpoint, self._ttl, self._keys = endpoints.parse(address), ttl, keys
        self._shared = SharedBlocks() if shares else None
        self._freed = freed
        self._handshakes: Handshakes | None = None
        self._torn = False
        self._context = zmq.Context()
        try:
            self._open()
        except BaseException:
            if hasattr(self, "socket"):  # else a signal's handler raised before there was one
                self.close()
            raise

    def _open(self) -> None:
        self._unsealing = Unsealing()
        self.socket = self._context.socket(zmq.DEALER)
        by_name = self._endpoint.is_named
        options = {
            # A connection that broke takes its queue with it, and the next one starts with a probe. With this no
            # multipart message may be received: `dfserve.wire.envelope` says why.
            zmq.IMMEDIATE: 1,
            zmq.PROBE_ROUTER: 1,
            zmq.SNDHWM: 0,  # credit bounds what is sent
            zmq.RCVHWM: 0,  # and what is received
            zmq.LINGER: LINGER_MS,
            zmq.RECONNECT_IVL: RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_BY_NAME_MS if by_name else RECONNECT_MAX_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HEARTBEAT_TTL: int(self._ttl * 1000),
            zmq.TCP_KEEPALIVE: 1,
        }
        for option, value in options.items():
            self.socket.setsockopt(option, value)
        self.socket.setsockopt(zmq.ROUTING_ID, b"c" + secrets.token_bytes(15))
        if self._endpoint.scheme == "tcp":
            self._be_known()
        endpoints.connect(self.socket, self._endpoint)

    def _be_known(self) -> None:
        if (keys := self._keys) is not None:
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, keys.broker)
        self._handshakes = Handshakes(Monitor(self._context, self.socket), self._endpoint, keys)

    def begin(self) -> None:
        """Begin to send, or to receive and to act upon it: what a signal's handler that raises, as Ctrl-C does, tears.

        Half a message may be in the socket then, or a whole one nowhere. What does not come to `end` is the end of the
        connection, as if it had been cut: the next `begin` makes another one, and the hello there says what is missing.
        """
        if self._torn:
            self._close_socket(linger=0)
            self._open()
        self._torn = True

    def end(self) -> None:
        """All that was begun is done."""
        self._torn = False

    def check(self) -> None:
        """See that the broker has not turned us away; to be called about once a second while waiting.

        Raises:
            KeysError: it has, and says no more; the message says why, and what to do.
        """
        if self._handshakes is not None:
            self._handshakes.check()

    def send(
        self, message: m.Message, frames: Sequence[Any] = (), *, compressed: bool = False, in_memory: bool = False
    ) -> None:
        """Send without waiting. Without a connection nothing is sent: the hello after the next one says it again.

        Args:
            message: what is sent.
            frames: of the block that it carries.
            compressed: the frames come from `dfserve.wire.compression`.
            in_memory: the first frame is a place in shared memory, see `dfserve.wire.placement`.
        """
        told = [*m.encode(message, compressed=compressed, in_memory=in_memory), *frames]
        greets = self._shared is not None and message.OF_CONSUMER
        if self._shared is not None:
            if greets:
                self._shared = SharedBlocks()  # of a connection that is over; blocks that are in use keep it
            told += self._shared.news()
        self._send(told)
        if greets:
            self._send(m.encode(m.MemoryWanted(machine())))

    def _send(self, frames: Sequence[Any]) -> None:
        with contextlib.suppress(zmq.Again):
            send_frames(self.socket, frames)

    def receive(self) -> tuple[m.Message, list[Any]] | None:
        """Return the next message and its block's frames (objects with the buffer protocol), or None if there is none.

        Raises:
            WireError: the broker sent bytes that break the protocol.
        """
        while True:
            try:
                frames = self._unsealing.put(receive_frame(self.socket))
            except zmq.Again:
                return None
            if frames is not None and (received := self._read(*frames)) is not None:
                return received

    def _read(self, header: bytes, body: Any, *block: Any) -> tuple[m.Message, list[Any]] | None:
        """Return what was received; None: it lies in shared memory from before the last hello."""
        shared = self._shared
        found = list(block)
        if shared is not None and m.is_in_memory(header):
            if (lying := shared.frames(block)) is None:
                return None
            header, found = m.without_memory(header), lying
        elif self._freed is not None and len(block) == 1 and not m.carries_block(header):
            self._freed(bytes(block[0]))
            found = []
        message = m.decode(header, bytes(body), len(found))
        if shared is not None and (answer := shared.receive(message)) is not None:
            self._send(m.encode(answer))
        return message, found

    def close(self) -> None:
        """Close, giving a goodbye two seconds to leave."""
        self._close_socket(linger=LINGER_MS)
        self._context.term()

    def _close_socket(self, linger: int) -> None:
        handshakes, self._handshakes = self._handshakes, None
        if handshakes is not None:
            handshakes.monitor.close()
        self.socket.close(linger)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
