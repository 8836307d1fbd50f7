"""Owns the broker's socket and poll loop: it moves frames between libzmq and the core, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.broker.front import LINGER, Front
from dfserve.broker.memory import Memory
from dfserve.errors import WireError
from dfserve.frames import receive_frames, send_singly
from dfserve.memory import Heap
from dfserve.wire import messages as m
from dfserve.wire.codecs import installed
from dfserve.wire.envelope import seal

if TYPE_CHECKING:
    from dfserve.broker.committer import Committer

log = logging.getLogger("dfserve.broker")

POLL_MS = 200  # milliseconds between ticks when nothing arrives
ENVELOPES = 1 << 32  # numbers of messages to clients; of two with the same one nothing is under way at once
# Bytes of the broker's own pool beyond its budget, which bounds what waits in it: what consumers' users keep. Only what
# is used of it is memory.
BESIDE = 256 << 20
SHRINK = 1.0  # seconds between two looks at what of it may be returned to the system
BATCH = 64  # messages taken in before the core acts on them: one pass of decisions for many events


class Broker:
    """A broker: embedded and standalone are this same class. A context manager; its socket belongs to one thread.

    Args:
        binds: addresses to bind, e.g. ``["tcp://0.0.0.0:8877", "ipc:///run/dfserve"]``; or the front that has bound
            them, with the limits of ``config``, and is closed with the broker.
        config: limits; the defaults suit one training machine.
        until: polled a few times a second; the loop drains and ends when it returns True.
        wake: a file descriptor whose readability ends a wait early (the embedded broker's lifeline).
        ledger: the file that keeps what consumers in epochs mode have claimed, so that a broker that is killed goes on
            where it was; None: this broker's end is its consumers' end.
        keys: the folder of the keys that are asked for on tcp, see `dfserve.keys`; None: everybody is admitted.

    Raises:
        KeysError: the keys cannot be used.
        LedgerError: the ledger is damaged, another program's, or in use; or, later, cannot be written any more.
        AddressInUse: naming the process that holds an address.
        EndpointError: an address that cannot be bound.
    """

    def __init__(
        self,
        binds: Sequence[str] | Front,
        config: BrokerConfig | None = None,
        *,
        until: Callable[[], bool],
        wake: int | None = None,
        ledger: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        self.config = config or BrokerConfig()
        self._committer: Committer | None = None
        self._front = binds if isinstance(binds, Front) else None
        self._memory = Memory(self.config.queue_bytes + BESIDE)
        self._heap = Heap()
        self._next_shrink = 0.0
        store = None if ledger is None else self._store
        self.core = Core(self.config, time.time, store, self._memory, installed())
        self._sent = 0
        self.last_turn = time.monotonic()  # when the loop last went round, for /livez
        self._until = until
        self._poller = zmq.Poller()
        self._wake = wake
        if wake is not None:
            self._poller.register(wake, zmq.POLLIN)
        try:
            if ledger is not None:
                self._open_ledger(ledger)
            front = self._front = binds if isinstance(binds, Front) else Front(binds, self.core.limits, keys)
        except BaseException:
            self.close()
            raise
        self.endpoints = front.endpoints
        self.core.tally.refused = front.refused
        self._socket, self._door = front.socket, front.door
        for socket in (self._socket, *self._door.sockets):
            self._poller.register(socket, zmq.POLLIN)

    def _open_ledger(self, path: Path) -> None:
        from dfserve.broker.committer import Committer  # here, because an embedded broker has none and starts sooner
        from dfserve.broker.ledger_file import LedgerFile

        file = LedgerFile(path)
        try:
            record = file.read()
            if record is not None:
                self.core.epochs.restore(file.sequence, record)
        except BaseException:
            file.close()
            raise
        self._committer = Committer(file)
        self._poller.register(self._committer.fileno(), zmq.POLLIN)

    def _store(self, number: int, record: bytes) -> None:
        assert self._committer is not None
        self._committer.submit(number, record)

    def _look_at_the_disk(self) -> None:
        committer = self._committer
        assert committer is not None
        committer.acknowledge()
        if committer.error is not None:
            raise committer.error
        self.core.saved(committer.durable)

    def run(self) -> None:
        """Serve until told to stop, then send what can still be sent."""
        while not self._until():
            self.turn()

    def turn(self) -> None:
        """Wait for messages or the next tick, and act on them."""
        ready = [where for where, _ in self._poller.poll(POLL_MS)]
        taken = 0
        if any(where is self._socket for where in ready):
            for connection, frames in self._incoming():
                self.core.receive(connection, frames)
                taken += 1
        if any(where is not self._socket for where in ready):
            self._look_elsewhere(ready)
        self.last_turn = time.monotonic()
        self.core.tick(self.last_turn, drained=taken < BATCH)
        self._memory.keep(self.core.peers)
        if self.last_turn >= self._next_shrink:
            self._next_shrink = self.last_turn + SHRINK
            self._memory.shrink()
            self._heap.shrink()
        self._send_all()

    def _look_elsewhere(self, ready: Sequence[Any]) -> None:
        if any(where in ready for where in self._door.sockets):
            self._door.serve()
        if self._committer is not None and self._committer.fileno() in ready:
            self._look_at_the_disk()

    def _incoming(self) -> Iterator[tuple[bytes, Sequence[Any]]]:
        for _ in range(BATCH):
            try:
                frames = receive_frames(self._socket)
            except zmq.Again:
                return
            connection, *rest = frames
            yield connection.bytes, self._without_freed(connection.bytes, rest)

    def _without_freed(self, connection: bytes, frames: Sequence[Any]) -> Sequence[Any]:
        """Take off a third frame of a consumer that shares memory: what it has done with.

        One that this broker does not know, because another has died, is asked who it is; its memory was the other's.
        """
        if len(frames) != 3 or (connection in self.core.peers and not self._memory.shares_with(connection)):
            return frames
        if m.carries_block(frames[0].bytes):
            return frames
        with contextlib.suppress(WireError):  # it is the consumer's own memory
            self._memory.freed(connection, frames[2].bytes)
        return frames[:2]

    def _send_all(self) -> None:
        outgoing = self.core.drain()
        news = self._memory.take_freed()
        for connection, message, frames in outgoing:
            told = self._memory.framed(connection, message, frames)
            if not frames and connection in news:
                told.append(news.pop(connection))
            self._send_to(connection, told)
        for connection, freed in news.items():
            self._send_to(connection, [*m.encode(m.Beat()), freed])
        for connection, message in self._memory.take_said():
            self._send_to(connection, m.encode(message))

    def _send_to(self, connection: bytes, frames: Sequence[Any]) -> None:
        self._sent = (self._sent + 1) % ENVELOPES
        if not self._send(connection, seal(frames, self._sent)):
            self._memory.drop(connection)
            self.core.unreachable(connection)

    def _send(self, connection: bytes, frames: Sequence[Any]) -> bool:
        try:
            send_singly(self._socket, connection, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def drain(self, grace: float) -> bool:
        """Grant nothing more and hand out what is queued, for ``grace`` seconds at most. Tells whether all went out."""
        self.core.stop_accepting()
        deadline = time.monotonic() + grace
        while self.core.budget.used and time.monotonic() < deadline:
            self.turn()
        return self.core.budget.used == 0

    def see_out(self, grace: float) -> None:
        """Wait until consumers that have had everything have acknowledged the end, for ``grace`` seconds at most.

        One that has not looked yet would lose it with the connection, and wait for a broker that does not come back.
        """
        if self._wake is not None:
            self._poller.unregister(self._wake)  # which has spoken, and would end every wait
            self._wake = None
        deadline = time.monotonic() + grace
        while any(job.end_unheard for job in self.core.jobs.values()) and time.monotonic() < deadline:
            self.turn()

    def close(self) -> None:
        """Close the ledger and the socket; what was sent is given two seconds to leave, what was claimed to be kept."""
        if self._committer is not None:
            self._poller.unregister(self._committer.fileno())
            self._committer.close(LINGER / 1000)
            self._committer = None
        if self._front is not None:
            self._front.close()
            self._front = None
        self._memory.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
