"""Owns a worker's I/O thread: it carries blocks to the broker while the pipeline computes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import zmq

from dfserve.client import Connection
from dfserve.errors import BrokerLost, ConfigError, DfserveError, WireError
from dfserve.producer.outbox import Outbox
from dfserve.window import Window
from dfserve.wire.blocks import BlockBuilder
from dfserve.wire.messages import (
    MAX_NAME,
    MAX_REASON,
    MAX_TEXT,
    Bye,
    Fail,
    Message,
    ProducerHello,
    Refused,
)

log = logging.getLogger("dfserve.producer")

FLUSH = (
    0.005  # seconds a datapoint waits for company in its block: shorter than a training step, longer than 512 copies
)
BLOCK_BYTES = (1 << 20) - (4 << 10)  # so that with what a broker charges for it, it fits the smallest budget there is
BEAT = 1.0  # seconds between heartbeats
TTL = 10.0  # seconds of silence (a vanished machine, a stopped process) after which the broker drops the connection
PATIENCE = 10.0  # seconds between lines in the log that say what is being waited for
JOIN = 10.0  # seconds for the thread to end; it sends a goodbye and closes its socket


class Interrupted(Exception):  # noqa: N818  # not an error: somebody asked for it
    """A send that waited for room was told to stop; the datapoint was not taken."""


class Sender:
    """Sends datapoints to a broker. Used by one thread; a second one, its own, holds the socket. A context manager.

    Args:
        address: the broker's address.
        identity: who this worker is.
        hwm: datapoints that may be in flight, see `Window`.
    """

    def __init__(self, address: str, identity: ProducerHello, hwm: int) -> None:
        self.address = address
        self._outbox = Outbox(identity, Window(hwm))
        self._builder = BlockBuilder(BLOCK_BYTES)
        self._opened = 0.0  # when the block that is being built got its first datapoint
        self._blocked = 0.0
        self._nbytes = 0
        self._changed = threading.Condition()  # guards the outbox
        self._building = threading.Lock()  # guards the builder; taken last
        self._error: BaseException | None = None
        self._stopping = False
        self._interrupted = False
        self._heard = 0.0  # when the broker last said something; 0 = never
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="dfserve-sender", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ the pipeline's thread

    def send(self, datapoint: Any) -> None:
        """Send a datapoint; it is copied before this returns. Waits while too much is in flight.

        Raises:
            EncodeError: it holds something that cannot travel.
            BlockTooLarge: it is larger than the broker admits.
            BrokerLost, ConfigError, WireError: the broker refused us.
            Interrupted: `interrupt` was called while it waited.
        """
        builder = self._builder
        with self._building:  # the hot path: one lock, one copy
            taken = builder.count > 0 and builder.add(datapoint)
            if taken and not builder.full:
                return
        with self._changed:
            self._close_block()
            if not taken:
                self._await_room()
                self._begin_block(datapoint)

    def _begin_block(self, datapoint: Any) -> None:
        with self._building:
            self._opened = time.monotonic()
            self._builder.add(datapoint)
            full = self._builder.full
        if full:
            self._close_block()

    def fail(self, fail: Fail) -> None:
        """Report that the pipeline raised, after everything that was sent before."""
        with self._changed:
            self._close_block()
            self._outbox.put_fail(fail)
            self._wake()

    def finish(self) -> None:
        """Report the clean end of the last pass, after everything that was sent before."""
        with self._changed:
            self._close_block()
            self._outbox.put_finish()
            self._wake()

    def drain(self, deadline: float = float("inf"), *, consumed: bool = False) -> bool:
        """Wait until the broker has everything (``consumed``: until consumers have), or until a monotonic time.

        Logs every ten seconds what it is waiting for. Returns whether all is there.
        """
        with self._changed:
            self._close_block()
            complain = time.monotonic() + PATIENCE
            while not (self._outbox.consumed if consumed else self._outbox.empty):
                self._raise_error()
                now = time.monotonic()
                if now >= deadline:
                    return False
                if now >= complain:
                    complain = now + PATIENCE
                    log.warning("%s", self._waiting_for(consumed))
                self._changed.wait(min(BEAT, deadline - now))
        return True

    def interrupt(self) -> None:
        """Make a `send` that waits for room raise `Interrupted` within a second. May be called by a signal handler."""
        self._interrupted = True

    def close(self) -> None:
        """End the thread. What the broker does not have by now is lost; call `drain` first."""
        with self._changed:
            self._stopping = True
            self._wake()
        self._thread.join(JOIN)
        self._wake_in.close()
        self._wake_out.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def blocked(self) -> float:
        """Seconds that `send` has waited for room so far."""
        return self._blocked

    @property
    def nbytes(self) -> int:
        """Bytes of blocks built so far."""
        return self._nbytes

    @property
    def held(self) -> int:
        """Blocks that the broker does not have."""
        return self._outbox.held

    def _await_room(self) -> None:
        if self._error is None and self._outbox.has_room:
            return
        started, complain = time.monotonic(), time.monotonic() + PATIENCE
        while not self._outbox.has_room:
            self._raise_error()
            if self._interrupted:
                raise Interrupted
            self._changed.wait(BEAT)
            now = time.monotonic()
            if now >= complain and now - self._heard > PATIENCE:
                complain = now + PATIENCE
                log.warning("%s", self._waiting_for(False))
        self._blocked += time.monotonic() - started
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _waiting_for(self, consumed: bool) -> str:
        silent = time.monotonic() - self._heard
        if not self._heard:
            return f"no broker answers at {self.address} yet; still trying, {self._outbox.held} blocks are waiting"
        if silent > PATIENCE:
            return f"the broker at {self.address} is silent for {silent:.0f} s; {self._outbox.held} blocks are waiting"
        if consumed and self._outbox.empty:
            return f"waiting for consumers at {self.address} to take what was sent"
        return (
            f"waiting for credit from {self.address} for {self._outbox.held} blocks: consumers are slower than we are"
        )

    def _close_block(self) -> None:
        """Hand the block that is being built to the outbox. The caller holds `_changed`, so blocks keep their order."""
        with self._building:
            if not self._builder.count:
                return
            block = self._builder.close()
        self._outbox.put_block(block.frames, block.count, block.nbytes)
        self._nbytes += block.nbytes
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"x")
        except BlockingIOError:
            return  # it has a wake-up call waiting already

    # ------------------------------------------------------------------ its own thread

    def _run(self) -> None:
        try:
            with Connection(self.address, ttl=TTL) as connection:
                self._serve(connection)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the pipeline's thread must raise it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _serve(self, connection: Connection) -> None:
        poller = zmq.Poller()
        poller.register(connection.socket, zmq.POLLIN)
        poller.register(self._wake_out.fileno(), zmq.POLLIN)
        beat = time.monotonic() + BEAT
        while True:
            for where, _ in poller.poll(int(self._until_due(beat) * 1000) + 1):
                if where is not connection.socket:
                    self._wake_out.recv(4096)
            while (received := connection.receive()) is not None:
                self._handle(connection, received[0])
            with self._changed:
                if self._builder.count and self._outbox.has_room and time.monotonic() - self._opened >= FLUSH:
                    self._close_block()
                outgoing = self._outbox.take_outgoing()
                stopping = self._stopping
            for message, frames in outgoing:
                connection.send(message, frames)
            if stopping:
                connection.send(Bye(0, 0))
                return
            if time.monotonic() >= beat:
                beat = time.monotonic() + BEAT
                with self._changed:
                    message = self._outbox.beat(self._blocked)
                connection.send(message)

    def _until_due(self, beat: float) -> float:
        """Seconds until something is due: the next heartbeat, or the block that is being built."""
        now = time.monotonic()
        due = beat
        if self._builder.count and self._outbox.has_room:
            due = min(due, self._opened + FLUSH)
        return max(0.0, due - now)

    def _handle(self, connection: Connection, message: Message) -> None:
        self._heard = time.monotonic()
        answers: list[Message] = []
        with self._changed:
            try:
                if isinstance(message, Refused):
                    raise _refusal(message, self.address)
                answers = self._outbox.receive(message)
            except DfserveError as error:
                self._error = error
            self._changed.notify_all()
        for answer in answers:
            connection.send(answer)


def _refusal(message: Refused, address: str) -> DfserveError:
    text = f"the broker at {address} refused this producer: {message.text}"
    if message.kind == "config":
        return ConfigError(text)
    return WireError(message.kind, text) if message.kind != "expired" else BrokerLost(text)


def fail_message(error: BaseException, key: str, traceback: str, *, fatal: bool) -> Fail:
    """Make the report of an exception; its number is filled in by the outbox. Long texts are cut in the middle."""
    name = _cut(type(error).__name__, MAX_NAME)
    return Fail(0, _cut(key, MAX_REASON), name, _cut(str(error), MAX_TEXT), _cut(traceback, MAX_TEXT), fatal)


def _cut(text: str, most: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # a file name that is not UTF-8 has lone surrogates
    mark = "\n... cut ...\n"
    half = (most - len(mark)) // 2
    return text if len(text) <= most else text[:half] + mark + text[-half:]
