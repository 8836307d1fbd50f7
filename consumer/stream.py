"""Owns stream mode at a consumer: what producers send as long as they send it, over any reconnect."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from dfserve.client import Connection
from dfserve.consumer.cursor import Cursor
from dfserve.consumer.failures import pipeline_error
from dfserve.consumer.inbox import Arrival, Inbox
from dfserve.consumer.session import Session
from dfserve.consumer.waiting import WaitMeter, metered, missing
from dfserve.dataflow.policy import OnError, Tally
from dfserve.errors import ConfigError, DfserveError, PipelineError, WireError, WorkerLost
from dfserve.wire import messages as m
from dfserve.wire.blocks import open_block
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import join
from dfserve.wire.recycler import Recycler

log = logging.getLogger("dfserve.consumer")

SHORT_MS = 1  # milliseconds of a wait before what is owed is sent: at full speed the next block comes sooner


class EndOfStream(Exception):  # noqa: N818  # not an error; never leaves this module
    """The stream has ended."""


class Stream:
    """A stream of one consumer.

    Args:
        addresses: of the broker, for messages.
        connect: makes the session.
        identity: who this consumer is.
        timeout: seconds without a datapoint after which it is an error.
        on_error: the policy for what fails remotely.
        meter: adds up the seconds of waiting.

    Attributes:
        errors: failures so far.
        in_doubt: datapoints that a consumer which died may have handed out too.
    """

    def __init__(
        self,
        addresses: list[str],
        connect: Callable[[], Session],
        identity: m.ConsumerHello,
        *,
        timeout: float,
        on_error: OnError,
        meter: WaitMeter,
    ) -> None:
        self._addresses = addresses
        self._connect = connect
        self._inbox = Inbox(identity)
        self._min_producers = identity.min_producers
        self._timeout = timeout
        self._tally = Tally(on_error, "RemoteDataZMQ")
        self._meter = meter
        self._cursor = Cursor()
        self._open: Arrival | None = None
        self._beat: m.ConsumerBeat | None = None
        self._source: Session | None = None
        self._recycler = Recycler()
        self.errors = 0
        self.in_doubt = 0

    def reset_state(self) -> None:
        """Connect, and join the group."""
        if self._source is not None:
            return
        self._source = self._connect()
        with metered(self._meter, lambda: self._beat) as each_tick:
            self._await(lambda: self._inbox.welcomed, each_tick)

    def widen(self, hwm: int) -> None:
        """Have at least so many datapoints in flight, if it is not connected yet."""
        self._inbox.widen(hwm)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator that ends with the stream."""
        try:
            while True:
                yield from self._cursor.unfolded
                if not self._cursor.unfold():
                    self._next_block()
        except EndOfStream:
            return

    def __next__(self) -> Any:
        """Return the next datapoint; StopIteration at the end of a finite stream."""
        try:
            while True:
                for datapoint in self._cursor.unfolded:
                    return datapoint
                if not self._cursor.unfold():
                    self._next_block()
        except EndOfStream:
            raise StopIteration from None

    def draws(self, size: int) -> Iterator[list[Sequence[Any]]]:
        """Return an iterator that takes ``size`` datapoints at a time, as slices of blocks; fewer at the stream's end.

        What it has taken counts as handed out.
        """
        while pieces := self._draw(size):
            short = sum(map(len, pieces)) < size
            yield pieces
            if short:
                return

    def _draw(self, size: int) -> list[Sequence[Any]]:
        pieces: list[Sequence[Any]] = []
        with suppress(EndOfStream):
            while size:
                piece = self._cursor.take(size)
                if piece:
                    pieces.append(piece)
                    size -= len(piece)
                else:
                    self._next_block()
        return pieces

    def close(self) -> None:
        """Forget the session, which is closed by whoever closes it, and what was received."""
        self._source = None
        self._cursor, self._open = Cursor(), None
        self._inbox.expire()

    # ------------------------------------------------------------------ blocks

    def _next_block(self) -> None:
        """Make the next block the one that is handed out; raise what arrived instead of one."""
        self.reset_state()
        self._finish_open()
        arrival = self._inbox.take()
        if arrival is None:
            self._receive()
            arrival = self._inbox.take()
        if arrival is None:
            self._await_arrival()
            arrival = self._inbox.take()
            assert arrival is not None
        self._open = arrival
        message = arrival.message
        if isinstance(message, m.Deliver):
            self._open_block(message, arrival)
            return
        self._finish_open()
        if isinstance(message, m.DeliverFailure):
            self._fail(pipeline_error(message))
            return
        if message.broken:
            self._fail(_incomplete(message))
        if self._inbox.owes:  # nobody may ask for more
            self._send_receipt()
        raise EndOfStream

    def _open_block(self, message: m.Deliver, arrival: Arrival) -> None:
        try:
            frames = join(arrival.frames, message.pieces, DEFAULT_LIMITS, self._recycler)
            rows = open_block(frames)
        except WireError as error:
            self.errors += 1
            log.error("dropped a block of %s: %s", message.source, error)
            return
        if message.again:
            self.in_doubt += len(rows) - message.skip
        self._cursor = Cursor(rows[message.skip :])
        self._tally.good(len(rows) - message.skip)

    def _finish_open(self) -> None:
        arrival, self._open = self._open, None
        if arrival is not None:
            self._inbox.handed_out(arrival)
            if self._inbox.receipt_due(time.monotonic()):
                self._send_receipt()

    def _send_receipt(self) -> None:
        if self._source is not None:
            for message in self._inbox.receipt(self._meter.total, time.monotonic()):
                self._source.connection.send(message)

    def farewell(self) -> m.Message:
        """Return the goodbye: what was not handed out is the group's again."""
        left = self._cursor.left
        if self._open is not None and left == 0:
            self._inbox.handed_out(self._open)
            return m.Bye(self._inbox.done, 0)
        if self._open is None or not isinstance(self._open.message, m.Deliver):
            return m.Bye(self._inbox.done, 0)
        message = self._open.message
        return m.Bye(self._inbox.done, message.count - message.skip - left)

    def _fail(self, error: DfserveError) -> None:
        self.errors += 1
        self._tally.bad(error, error.remote_traceback if isinstance(error, PipelineError) else "")

    # ------------------------------------------------------------------ waiting

    def _await_arrival(self) -> None:
        source = self._source
        assert source is not None
        with metered(self._meter, lambda: self._beat) as each_tick:
            if self._inbox.owes:
                if source.connection.socket.poll(SHORT_MS):
                    self._receive()
                if not self._inbox:
                    self._send_receipt()
            self._await(lambda: bool(self._inbox), each_tick)

    def _await(self, ready: Callable[[], bool], each_tick: Callable[[float], None] = lambda _: None) -> None:
        """Receive until something is there; every wait ends with it or with an error that says who is missing."""
        source = self._source
        assert source is not None
        beat = lambda: self._inbox.beat(self._meter.total, time.monotonic())  # noqa: E731  # read when it is sent
        source.wait(ready, self._receive, beat, self._missing, self._timeout, each_tick)

    def _missing(self, waited: float) -> str:
        return missing(self._beat, " and ".join(self._addresses), waited, self._min_producers)

    def _receive(self) -> None:
        """Take messages in until there is a delivery or none is left; the rest waits in libzmq's queue."""
        source = self._source
        assert source is not None
        for message, frames in () if self._inbox else source.messages(self._note_bad):
            self._handle(source.connection, message, frames)
            if self._inbox:
                return

    def _note_bad(self) -> None:
        self.errors += 1

    def _handle(self, connection: Connection, message: m.Message, frames: list[Any]) -> None:
        if isinstance(message, m.ConsumerBeat):
            self._beat = message
        if isinstance(message, m.Refused) and message.kind != "expired":
            text = f"the broker at {' and '.join(self._addresses)} refused this consumer: {message.text}"
            raise ConfigError(text) if message.kind == "config" else WireError(message.kind, text)
        for answer in self._inbox.receive(message, frames):
            connection.send(answer)


def identity(pipeline: str, group: str, lag: str, hwm: int, min_producers: int) -> m.ConsumerHello:
    """Return who a consumer of this process is."""
    host = socket.gethostname()
    return m.ConsumerHello(
        session=secrets.token_bytes(m.SESSION_BYTES),
        name=f"{host}/{os.getpid()}",
        host=host,
        pid=os.getpid(),
        pipeline=pipeline,
        group=group,
        hwm=hwm,
        lag=lag,
        min_producers=min_producers,
        broker=b"",
        received=0,
        done=0,
    )


def _incomplete(message: m.DeliverEnd) -> WorkerLost:
    workers = ", ".join(message.broken)
    first = message.broken[0].split(":")[0]
    return WorkerLost(
        f"the pass is not complete: {len(message.broken)} of {len(message.broken) + message.finished} workers did not "
        f"end it ({workers})",
        host=first.rpartition("/")[0],
        worker=first,
    )
