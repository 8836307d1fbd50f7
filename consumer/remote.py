"""Owns `RemoteDataZMQ`, the iterator that hands remote datapoints to a training step.

It has no thread. Blocks are received by libzmq's own threads while the training step runs, GIL or no GIL, and are
turned into datapoints (views, no copies) when the step asks for the next one. So it costs the trainer next to nothing,
and a trainer that pauses is only a trainer that asks for nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal

from dfserve import endpoints
from dfserve.client import Connection
from dfserve.consumer.inbox import Arrival, Inbox
from dfserve.consumer.waiting import WaitMeter, missing
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.policy import OnError, Tally
from dfserve.embedded import EmbeddedBroker
from dfserve.errors import ConfigError, DfserveError, PipelineError, Starved, WireError, WorkerLost
from dfserve.window import Window
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import join
from dfserve.wire.recycler import Recycler

log = logging.getLogger("dfserve.consumer")

TICK = 1.0  # seconds between heartbeats, and between looks at the embedded broker, while waiting
PATIENCE = 10.0  # seconds of waiting before the log says what is being waited for
NO_ROWS: tuple[Any, ...] = ()


class EndOfStream(Exception):  # noqa: N818  # not an error; never leaves this module
    """The stream has ended."""


class RemoteDataZMQ(DataFlow):
    """Datapoints from producers on other machines. A DataFlow, an iterator and a context manager.

    With ``bind=True`` it hosts a broker (a child process) at its addresses, and producers connect to it. With
    ``bind=False`` it connects to one, together with other consumers.

    Iterating again after `break` goes on where it stopped. Received arrays are read-only views of the received block,
    which lives as long as any of them; `dfserve.writable` copies a datapoint.

    Buffering: up to ``hwm`` datapoints wait in this process, up to ``queue_bytes`` in the broker.
    Closing: `close` gives back what was not handed out, for other consumers of the group.
    Threads: it belongs to the thread and process that iterates; `reset_state` (or the first ``next``) connects there.

    Args:
        addr1: ``tcp://host:port``, ``ipc://path`` or ``ipc://@name``.
        addr2: a second address to bind, e.g. one ipc and one tcp.
        hwm: datapoints in flight to this consumer, i.e. sent by the broker and not handed out. At least 16 MiB of small
            ones and at most 64 MiB of large ones (never less than two blocks), whatever it says; 50 is tensorpack's.
        bind: host the broker here.
        timeout: seconds without a datapoint after which ``next`` raises `Starved`. The default leaves a pipeline five
            minutes to start.
        min_producers: workers that must have ended their last pass before a finite stream ends. One that broke off
            counts too, and makes the end an error.
        pipeline: name of the pipeline to consume.
        group: consumers of one group share the data, each group gets all of it.
        lag: when this group is too slow for the others, ``"wait"`` holds the producers back, ``"skip"`` lets its oldest
            blocks go (counted in ``dfserve_datapoints_skipped_total``).
        on_error: ``"raise"`` raises what went wrong remotely (`PipelineError`, `WorkerLost`); ``"skip"`` logs and
            counts it, within the limits of ``dfserve.dataflow.SkipErrors``, which may be given with limits of its own.
        format: None, or ``"msgpack"`` / ``"zmq_ops"`` to receive from tensorpack's own senders (a bare PULL socket).
        queue_bytes: the hosted broker's budget in bytes.
        max_frame: bytes of one array that the hosted broker admits.
        metrics_port: port on which the hosted broker serves /metrics, None for none.

    Raises:
        AddressInUse: another process holds an address (it is named); use ``bind=False`` to share its broker.
        EndpointError, ConfigError: an address or argument that cannot work.
        Starved: nothing arrived within ``timeout``; says who is missing.
        PipelineError, WorkerLost: something failed on a data machine (``on_error="raise"``).
        TooManyErrors: more failed than ``on_error`` allows.
        BrokerLost: the hosted broker ended.
    """

    def __init__(
        self,
        addr1: str,
        addr2: str | None = None,
        hwm: int = 50,
        bind: bool = True,
        *,
        timeout: float = 300.0,
        min_producers: int = 1,
        pipeline: str = "default",
        group: str = "default",
        lag: Literal["wait", "skip"] = "wait",
        on_error: OnError = "raise",
        format: Literal["msgpack", "zmq_ops"] | None = None,  # the name that send_dataflow_zmq has
        queue_bytes: int = 1 << 30,
        max_frame: int = 256 << 20,
        metrics_port: int | None = None,
    ) -> None:
        self._addresses = [addr1] if addr2 is None else [addr1, addr2]
        _check(self._addresses, bind, lag, timeout, min_producers)
        Window(hwm)
        self._hwm, self._bind, self._timeout = hwm, bind, timeout
        self._min_producers, self._tally, self._format = min_producers, Tally(on_error, type(self).__name__), format
        self._broker_settings = {"queue_bytes": queue_bytes, "max_frame": max_frame}
        self._metrics_port = metrics_port
        self._inbox = Inbox(_identity(pipeline, group, lag, hwm, min_producers))
        self._rows: Iterator[Any] = iter(NO_ROWS)
        self._open: Arrival | None = None
        self._meter = WaitMeter(time.monotonic())
        self._beat: m.ConsumerBeat | None = None
        self._source: _Source | None = None
        self._recycler = Recycler()
        self._plain: Any = None
        self.errors = 0
        self.in_doubt = 0

    # ------------------------------------------------------------------ the user's side

    def reset_state(self) -> None:
        """Bind or connect, and join the group: what is produced from here on reaches it. Calling it again is harmless.

        Raises:
            Starved: with ``bind=False``, no broker answered within ``timeout``.
        """
        if self._source is not None and self._source.pid == os.getpid():
            return
        if self._source is not None:
            raise ConfigError(
                f"this RemoteDataZMQ was connected in process {self._source.pid} and is used in {os.getpid()}; "
                "make one in each process (with bind=False), or call reset_state only in the process that iterates"
            )
        if self._format is not None:
            self._plain = self._plain or self._open_plain()
            return
        self._source = _Source(self._addresses, self._bind, self._broker_settings, self._metrics_port)
        started = time.monotonic()
        try:
            self._await(lambda: self._inbox.welcomed)
        finally:
            self._meter.add(time.monotonic() - started)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator that ends with the stream. A new one goes on where the last one stopped."""
        self.reset_state()
        return self._until_end()

    def _until_end(self) -> Iterator[Any]:
        try:
            while True:
                if self._plain is not None:
                    yield self._plain.receive()
                else:
                    yield from self._rows
                    self._next_block()
        except EndOfStream:
            return

    def __next__(self) -> Any:
        """Return the next datapoint; StopIteration at the end of a finite stream. (Then, of the next one.)"""
        if self._source is None and self._plain is None:
            self.reset_state()
        if self._plain is not None:
            return self._plain.receive()
        try:
            while True:
                for datapoint in self._rows:
                    return datapoint
                self._next_block()
        except EndOfStream:
            raise StopIteration from None

    @property
    def waited(self) -> float:
        """Seconds spent in ``next`` waiting for data so far."""
        return self._meter.total

    @property
    def endpoints(self) -> list[str]:
        """The addresses that are bound, with ports resolved (``bind=True``), or that it connects to."""
        if self._plain is None:
            self.reset_state()
        broker = self._source.broker if self._source is not None else None
        return broker.endpoints if broker is not None else self._addresses

    def close(self) -> None:
        """Leave the group, giving back what was not handed out; end the hosted broker. Safe to call twice."""
        source, self._source = self._source, None
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        if source is not None:
            if source.pid == os.getpid():
                source.connection.send(self._goodbye())
            source.close()
        self._rows, self._open = iter(NO_ROWS), None
        self._inbox.expire()

    def __enter__(self) -> RemoteDataZMQ:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------ blocks

    def _next_block(self) -> None:
        """Make the next block's datapoints the rows; raise what arrived instead of one."""
        self.reset_state()
        if self._plain is not None:
            return
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
            self._fail(_pipeline_error(message))
            return
        if message.broken:
            self._fail(_incomplete(message))
        raise EndOfStream

    def _open_block(self, message: m.Deliver, arrival: Arrival) -> None:
        try:
            frames = join(arrival.frames, message.pieces, DEFAULT_LIMITS, self._recycler)
            rows = decode_block(frames)
        except WireError as error:
            self.errors += 1
            log.error("dropped a block of %s: %s", message.source, error)
            return
        if message.again:
            self.in_doubt += len(rows) - message.skip
        self._rows = iter(rows[message.skip :])
        self._tally.good(len(rows) - message.skip)

    def _finish_open(self) -> None:
        arrival, self._open = self._open, None
        if arrival is not None:
            self._inbox.handed_out(arrival)
            self._send_receipt()

    def _send_receipt(self) -> None:
        if self._source is not None:
            for message in self._inbox.receipt(self._meter.total):
                self._source.connection.send(message)

    def _goodbye(self) -> m.Bye:
        left = self._rows.__length_hint__()  # type: ignore[attr-defined]  # list and tuple iterators have it
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
        started = time.monotonic()
        before = self._meter.total
        try:
            self._await(lambda: bool(self._inbox), lambda waited: self._report(before, waited))
        finally:
            now = time.monotonic()
            self._meter.add(now - started - (self._meter.total - before))
            if (line := self._meter.advice(now, self._beat)) is not None:
                log.warning("%s", line)

    def _report(self, before: float, waited: float) -> None:
        """Once a second of waiting, count it, so that the metrics show a wait that has not ended."""
        self._meter.add(waited - (self._meter.total - before))

    def _await(self, ready: Callable[[], bool], each_tick: Callable[[float], None] = lambda _: None) -> None:
        """Receive until something is there; every wait ends with it or with an error that says who is missing."""
        source = self._source
        assert source is not None
        started = time.monotonic()
        tick, complain = started + TICK, started + PATIENCE
        self._receive()
        while not ready():
            now = time.monotonic()
            if now >= started + self._timeout:
                raise Starved(self._missing(now - started))
            if now >= tick:
                tick = now + TICK
                source.check()
                each_tick(now - started)
                source.connection.send(self._inbox.beat(self._meter.total))
            if now >= complain:
                complain = now + 3 * PATIENCE
                log.warning("%s", self._missing(now - started))
            if source.connection.socket.poll(int(1000 * max(0.0, min(tick, started + self._timeout) - now)) + 1):
                self._receive()

    def _missing(self, waited: float) -> str:
        return missing(self._beat, " and ".join(self._addresses), waited, self._min_producers)

    def _receive(self) -> None:
        """Take messages in until there is a delivery or none is left; the rest waits in libzmq's queue."""
        source = self._source
        assert source is not None
        while not self._inbox:
            try:
                received = source.connection.receive()
            except WireError as error:
                if error.reason == "version":
                    raise
                self.errors += 1
                log.error("the broker sent a message that cannot be read: %s", error)
                continue
            if received is None:
                return
            self._handle(source.connection, *received)

    def _handle(self, connection: Connection, message: m.Message, frames: list[Any]) -> None:
        if isinstance(message, m.ConsumerBeat):
            self._beat = message
        if isinstance(message, m.Refused) and message.kind != "expired":
            text = f"the broker at {' and '.join(self._addresses)} refused this consumer: {message.text}"
            raise ConfigError(text) if message.kind == "config" else WireError(message.kind, text)
        for answer in self._inbox.receive(message, frames):
            connection.send(answer)

    def _open_plain(self) -> Any:
        from dfserve.consumer.plain import PlainReceiver
        from dfserve.formats import loads_of

        assert self._format is not None
        addr2 = self._addresses[1] if len(self._addresses) > 1 else None
        loads = loads_of(self._format)
        return PlainReceiver(
            self._addresses[0], addr2, hwm=self._hwm, bind=self._bind, loads=loads, timeout=self._timeout
        )


class _Source:
    """The hosted broker, if any, and the connection to it: made together, and closed together at the latest at exit."""

    def __init__(self, addresses: list[str], bind: bool, settings: dict[str, Any], metrics_port: int | None) -> None:
        self.pid = os.getpid()
        self.broker: EmbeddedBroker | None = None
        if bind:
            for address in addresses:
                if not endpoints.is_loopback(endpoints.parse(address)):
                    log.warning("%s can be reached from other hosts and asks for no key", address)
            self.broker = EmbeddedBroker(addresses, settings, metrics_port)
        self.connection = Connection(self.broker.address if self.broker is not None else addresses[0])
        self._finalizer = weakref.finalize(self, _close, self.pid, self.connection, self.broker)

    def check(self) -> None:
        if self.broker is not None:
            self.broker.check()

    def close(self) -> None:
        self._finalizer()


def _close(pid: int, connection: Connection, broker: EmbeddedBroker | None) -> None:
    if os.getpid() != pid:
        return  # a forked child must not close its parent's
    connection.close()
    if broker is not None:
        broker.close()


def _check(addresses: list[str], bind: bool, lag: str, timeout: float, min_producers: int) -> None:
    for address in addresses:
        endpoints.parse(address)
    if not bind and len(addresses) > 1:
        raise ConfigError(f"bind=False connects to one broker; give one address, not {' and '.join(addresses)}")
    if lag not in ("wait", "skip"):
        raise ConfigError(f"lag is {lag!r}; it is 'wait' or 'skip'")
    if timeout <= 0:
        raise ConfigError(f"timeout is {timeout}; it counts seconds and must be above 0")
    if min_producers < 1:
        raise ConfigError(f"min_producers is {min_producers}; at least 1 must end before a stream can end")


def _identity(pipeline: str, group: str, lag: str, hwm: int, min_producers: int) -> m.ConsumerHello:
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


def _pipeline_error(message: m.DeliverFailure) -> PipelineError:
    return PipelineError(
        f"{message.kind} at {message.key} on {message.host}: {message.text}",
        key=message.key,
        kind=message.kind,
        host=message.host,
        worker=message.worker,
        remote_traceback=message.traceback,
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
