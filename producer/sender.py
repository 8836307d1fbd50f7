"""Owns a worker's I/O thread: it carries blocks to the broker while the pipeline computes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import zmq

from dfserve.client import Connection
from dfserve.errors import BrokerLost, ConfigError, DfserveError, WireError
from dfserve.producer.bell import Bell
from dfserve.producer.block_memory import BlockMemory
from dfserve.producer.lessee import Answer, Job, Lessee
from dfserve.producer.outbox import Outbox
from dfserve.producer.uplink import Uplink
from dfserve.window import WORKER_FLOOR_BYTES, Window
from dfserve.wire.arrays import Supply
from dfserve.wire.blocks import BlockBuilder
from dfserve.wire.codecs import codec_of
from dfserve.wire.compression import compress
from dfserve.wire.epoch_messages import Made, Source
from dfserve.wire.messages import Block, Bye, Fail, Message, ProducerHello, ProducerWelcome, Refused, Wanted
from dfserve.wire.pieces import cut

log = logging.getLogger("dfserve.producer")

# A block costs the three processes some milliseconds of CPU time together, whatever is in it. So datapoints wait for
# company: shorter than a training step, and so long that blocks take a few hundredths of the time.
FLUSH = 0.05  # seconds, where consumers have taken all there is
COMPANY = 0.002  # seconds, where the last block was longer ago than they would wait
HOLD = 0.1  # seconds, where they have not, and gain nothing from a block that comes earlier
BLOCK_BYTES = (1 << 20) - (4 << 10)  # so that with what a broker charges for it, it fits the smallest budget there is
# What a block costs beside the copying of its bytes is as much as the copying of 4 MiB. So where the broker has room,
# blocks are larger than that by some factor: images of 150 KB took a quarter less of everybody's time than in 4 MiB.
LARGE_BYTES = (16 << 20) - (4 << 10)
MOST_COUNT = 2048  # datapoints: some milliseconds of a pipeline that is as fast as pipelines get
SHARE = 64  # of the broker's budget: so many large blocks are to fit, or they stay small
BEAT = 1.0  # seconds between heartbeats
TTL = 10.0  # seconds of silence (a vanished machine, a stopped process) after which the broker drops the connection
SILENCE = 3.0  # seconds: heartbeats of the broker's that did not come
PATIENCE = 10.0  # seconds between lines in the log that say what is being waited for
JOIN = 10.0  # seconds for the thread to end; it sends a goodbye and closes its socket


class Interrupted(Exception):  # noqa: N818  # not an error: somebody asked for it
    """A send was told to stop while it waited for room, or not to wait; the datapoint was not taken."""


class Sender:
    """Sends one pipeline's datapoints and splits to a broker. A context manager.

    It is used by one thread; a second one, its own, holds the socket.

    Args:
        uplink: the way to the broker. What is compressed is compressed by this object's own thread, while the pipeline
            goes on.
        identity: who this worker is.
        bell: is rung for what the broker wants; those that are used by the same thread share one.

    Raises:
        ConfigError: the codec's package is missing.

    Attributes:
        patient: let `send` wait for room; else it raises `Interrupted` where there is none.
        takes_turns: ring the bell after every block, since other streams wait for their turn.
        stream_wanted: the broker wants the pipeline's stream; not known before it has answered.
    """

    def __init__(self, uplink: Uplink, identity: ProducerHello, bell: Bell | None = None) -> None:
        self.address = uplink.address
        self._memory = BlockMemory(uplink.shared_memory)
        self._codec = None if uplink.compression is None else codec_of(uplink.compression)
        self._keys = uplink.keys
        self._endless = not identity.passes
        self.patient = True
        self.takes_turns = False
        self.stream_wanted = False
        self._bell = bell or Bell()
        self._lessee = Lessee()
        self._say: list[Message] = []  # of leases
        self._complain_at = time.monotonic() + PATIENCE
        self._outbox = Outbox(identity, Window(uplink.hwm, WORKER_FLOOR_BYTES))
        self._builder = BlockBuilder(BLOCK_BYTES, MOST_COUNT, supply=self._memory.take)
        self._opened = 0.0  # when the block that is being built got its first datapoint
        self._closed = 0.0  # when the last one was closed
        self._wakes_at = 0.0  # when its thread looks again, if nothing wakes it before
        self._blocked = 0.0
        self._nbytes = 0
        self._changed = self._bell.changed  # guards the outbox and the lessee
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
            Interrupted: `interrupt` was called while it waited, or it is not to wait.
        """
        builder = self._builder
        if builder.take(datapoint):
            return
        with self._building:
            taken = builder.count > 0 and builder.add(datapoint)
            if taken and not builder.full:
                return
        with self._changed:
            self._close_block()
            if not taken:
                self._await_room()
                self._begin_block(datapoint)
            if self.takes_turns:
                self._bell.rung = True

    @property
    def short_way(self) -> BlockBuilder:
        """What `send` asks first: its ``take`` is cheaper, does for most datapoints, and returns False for others."""
        return self._builder

    def _begin_block(self, datapoint: Any) -> None:
        limits = self._outbox.limits
        with self._building:
            self._opened = time.monotonic()
            builder = self._builder
            if limits is not None:
                builder.max_bytes = max(BLOCK_BYTES, min(LARGE_BYTES, limits.budget // SHARE))
            builder.add(datapoint)
            full = builder.full
        if full:
            self._close_block()
        elif self._flush_at() < self._wakes_at:
            self._wake()

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

        So too for leases; but after `interrupt`, not at a broker that is gone: no item is lost, others make them again.
        Logs every ten seconds what it is waiting for. Returns whether all is there.
        """
        with self._changed:
            self._close_block()
            complain = time.monotonic() + PATIENCE
            while not self._is_done(consumed):
                self.raise_error()
                now = time.monotonic()
                if self._interrupted and now - self._heard > SILENCE and self._lessee.held:
                    log.info("the broker at %s is silent: %d leases are given up", self.address, self._lessee.held)
                    self._lessee.abandon()
                    continue
                if now >= deadline:
                    return False
                if now >= complain:
                    complain = now + PATIENCE
                    log.warning("%s", self._waiting_for(consumed))
                self._changed.wait(min(BEAT, deadline - now))
        return True

    def _is_done(self, consumed: bool) -> bool:
        if not self._lessee.empty:
            return False
        # Blocks of an endless stream that were made before anybody asked, and that nobody wants: there is epochs mode.
        unwanted = self._endless and self._interrupted and not self.stream_wanted
        return unwanted or (self._outbox.consumed if consumed else self._outbox.empty)

    def interrupt(self) -> None:
        """Make a `send` that waits for room raise `Interrupted`, and drop the leases that are not begun.

        May be called by a signal handler: the sender's thread, which it wakes, does the rest.
        """
        self._interrupted = True
        self._wake()

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
        """Blocks that the broker does not have, and leases."""
        return self._outbox.held + self._lessee.held

    @property
    def empty(self) -> bool:
        """Whether the broker has everything, and no lease is held."""
        return self._outbox.empty and self._lessee.empty

    @property
    def ready(self) -> bool:
        """Whether a datapoint may be sent without waiting, and the broker wants the stream."""
        return self.stream_wanted and (self._builder.count > 0 or self._outbox.has_room)

    @property
    def supply(self) -> Supply:
        """Where the memory of blocks for this broker comes from, see `BlockBuilder`."""
        return self._memory.take

    @property
    def limits(self) -> ProducerWelcome | None:
        """What the broker said last of its limits; None before it did."""
        return self._outbox.limits

    def raise_error(self) -> None:
        """Raise what ended the connection for good, if something has."""
        if self._error is not None:
            raise self._error

    def waited(self, seconds: float) -> None:
        """Note that the pipeline's thread waited elsewhere, for room here. Says so if the broker is silent."""
        self._blocked += seconds
        now = time.monotonic()
        if now >= self._complain_at and now - self._heard > PATIENCE:
            self._complain_at = now + PATIENCE
            log.warning("%s", self._waiting_for(False))

    # ------------------------------------------------------------------ leases, also for the pipeline's thread

    @property
    def source_wanted(self) -> bool:
        """Whether the broker asks for the pipeline's source; answer with `describe`."""
        return self._lessee.asks

    def describe(self, source: Source) -> None:
        """Tell the broker what the pipeline's items come from."""
        with self._changed:
            self._lessee.describe(source)
            self._wake()

    def take_lease(self) -> Job | None:
        """Return the earliest lease that is not begun, if there is one; to be followed by `put_made` or `drop`."""
        with self._changed:
            return self._lessee.take()

    def put_made(self, job: Job, answer: Answer, frames: Sequence[Any] = (), nbytes: int = 0) -> bool:
        """Send what was made of a lease; held until the broker has taken it. False: nobody wants it any more."""
        with self._changed:
            if not self._lessee.put(job, answer, frames):
                return False
            self._nbytes += nbytes
            self._wake()
        return True

    def drop(self, job: Job) -> None:
        """Give up a lease that was begun."""
        with self._changed:
            self._say += self._lessee.drop(job)
            self._wake()

    # ------------------------------------------------------------------ what these two have in common

    def _await_room(self) -> None:
        if self._error is None and self._outbox.has_room:
            return
        if not self.patient:
            self.raise_error()
            raise Interrupted
        started, complain = time.monotonic(), time.monotonic() + PATIENCE
        while not self._outbox.has_room:
            self.raise_error()
            if self._interrupted:
                raise Interrupted
            self._changed.wait(BEAT)
            now = time.monotonic()
            if now >= complain and now - self._heard > PATIENCE:
                complain = now + PATIENCE
                log.warning("%s", self._waiting_for(False))
        self._blocked += time.monotonic() - started
        self.raise_error()

    def _waiting_for(self, consumed: bool) -> str:
        silent = time.monotonic() - self._heard
        if not self._heard:
            return f"no broker answers at {self.address} yet; still trying, {self._outbox.held} blocks are waiting"
        if silent > PATIENCE:
            return f"the broker at {self.address} is silent for {silent:.0f} s; {self._outbox.held} blocks are waiting"
        if consumed and self._outbox.empty:
            return f"waiting for consumers at {self.address} to take what was sent"
        if self._outbox.empty:
            return f"waiting for the broker at {self.address} to take what was made of {self._lessee.held} leases"
        return (
            f"waiting for credit from {self.address} for {self._outbox.held} blocks: consumers are slower than we are"
        )

    def _close_block(self) -> None:
        """Hand the block that is being built to the outbox. The caller holds `_changed`, so blocks keep their order."""
        with self._building:
            if not self._builder.count:
                return
            block = self._builder.close()
        self._closed = time.monotonic()
        self._outbox.put_block(block.frames, block.count, block.nbytes)
        self._nbytes += block.nbytes
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"x")
        except OSError:
            return  # it has a wake-up call waiting already, or has ended

    # ------------------------------------------------------------------ its own thread

    def _run(self) -> None:
        try:
            with Connection(self.address, ttl=TTL, keys=self._keys, freed=self._memory.freed) as connection:
                self._serve(connection)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the pipeline's thread must raise it
            with self._changed:
                self._error = self._error or error
                self._bell.ring()
        finally:
            self._memory.close()

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
                if self._builder.count and self._outbox.has_room and time.monotonic() >= self._flush_at():
                    self._close_block()
                outgoing = self._take_outgoing()
                stopping = self._stopping
            for message, frames in outgoing:
                self._transmit(connection, message, frames)
            if stopping:
                connection.send(Bye(0, 0))
                return
            if time.monotonic() >= beat:
                beat = time.monotonic() + BEAT
                connection.check()
                self._memory.shrink()
                with self._changed:
                    beats = self._beats()
                for message in beats:
                    connection.send(message)

    def _transmit(self, connection: Connection, message: Message, frames: Sequence[Any]) -> None:
        """Send: where a block lies, if the broker reads it there; else the block, compressed if that makes it smaller.

        No lock is held: the pipeline goes on.
        """
        if frames and (placed := self._memory.place(frames)) is not None:
            connection.send(message, placed, in_memory=True)
            return
        if isinstance(message, (Block, Made)):
            frames, pieces = cut(frames)
            message = replace(message, pieces=pieces) if pieces else message
        small = None if self._codec is None or not frames else compress(frames, self._codec)
        connection.send(message, frames if small is None else small, compressed=small is not None)

    def _take_outgoing(self) -> list[tuple[Message, Sequence[Any]]]:
        if self._interrupted:
            self._say += self._lessee.close()
            self._changed.notify_all()
        if not self._outbox.welcomed:
            return []
        said, self._say = self._say, []
        return [*((message, ()) for message in said), *self._lessee.take_outgoing(), *self._outbox.take_outgoing()]

    def _beats(self) -> list[Message]:
        beats = [self._outbox.beat(self._blocked)]
        self._lessee.items = self._bell.items
        leases = self._lessee.beat() if self._outbox.welcomed else None
        return beats if leases is None else [*beats, leases]

    def _until_due(self, beat: float) -> float:
        """Seconds until something is due: the next heartbeat, or the block that is being built."""
        with self._changed:
            self._wakes_at = beat
            if self._builder.count and self._outbox.has_room:
                self._wakes_at = min(beat, self._flush_at())
        return max(0.0, self._wakes_at - time.monotonic())

    def _flush_at(self) -> float:
        """When the block that is being built is sent as it is: at once if the last one was long ago."""
        patience = FLUSH if self._outbox.consumed else HOLD
        return max(self._opened + COMPANY, self._closed + patience)

    def _handle(self, connection: Connection, message: Message) -> None:
        self._heard = time.monotonic()
        answers: list[Message] = []
        with self._changed:
            try:
                if isinstance(message, Refused):
                    raise _refusal(message, self.address)
                if isinstance(message, ProducerWelcome):
                    log.info("connected to the broker at %s", self.address)
                self._check_codec(message)
                answers = [*self._outbox.receive(message), *self._take_in(message), *self._memory.receive(message)]
            except DfserveError as error:
                self._error = error
                self._bell.rung = True
            self._changed.notify_all()
        for answer in answers:
            connection.send(answer)

    def _check_codec(self, message: Message) -> None:
        """See that the broker can decompress what it would be sent, before anything is."""
        if self._codec is None or not isinstance(message, ProducerWelcome) or self._codec.name in message.codecs:
            return
        name = self._codec.name
        raise ConfigError(
            f"the broker at {self.address} cannot decompress {name}: pip install 'dfserve[{name}]' on its machine and "
            "start it again, or send without compression"
        )

    def _take_in(self, message: Message) -> list[Message]:
        """Take in what the broker wants; the bell is rung if that is new."""
        wanted = self.stream_wanted
        if isinstance(message, ProducerWelcome):
            self._lessee.welcome(message.broker)
            self.stream_wanted = message.stream
        elif isinstance(message, Wanted):
            self.stream_wanted = message.stream
        answers = self._lessee.receive(message)
        if self._lessee.waits or self.stream_wanted is not wanted:
            self._bell.rung = True
        return answers


def _refusal(message: Refused, address: str) -> DfserveError:
    text = f"the broker at {address} refused this producer: {message.text}"
    if message.kind == "config":
        return ConfigError(text)
    return WireError(message.kind, text) if message.kind != "expired" else BrokerLost(text)
