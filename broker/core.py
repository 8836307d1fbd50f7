"""Owns the broker's decisions as a whole: who is behind a connection, and what each message leads to. Pure: no sockets.

The poll loop feeds it with (connection id, frames) and a clock, and sends what `drain` returns.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from dfserve.broker.arrival import arrived
from dfserve.broker.budget import BLOCK_OVERHEAD, Budget
from dfserve.broker.config import BrokerConfig
from dfserve.broker.epochs_desk import EpochsDesk, Store, WorkerMessage
from dfserve.broker.group import Consumer, Group
from dfserve.broker.intake import Worker
from dfserve.broker.memory import AboutMemory, Memory
from dfserve.broker.stream import StreamJob
from dfserve.broker.tally import Tally
from dfserve.errors import WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.codecs import Codec
from dfserve.wire.compression import Compressed

if TYPE_CHECKING:
    from dfserve.broker.epochs_job import EpochsJob
    from dfserve.broker.seats import Seat

log = logging.getLogger("dfserve.broker")

MAX_JOBS = 64  # pipelines by name; a peer must not make the broker keep a job for every name it can think of
BEAT = 1.0  # seconds between heartbeats to each client
MAX_STEP = 1.0  # seconds that the broker's clock advances at most between two ticks: a suspended broker expires nobody
FORGET = 300.0  # seconds after which the labels of what is gone disappear
MAX_HELLOS = 8  # of one connection between two beats; an honest one repeats its hello once a beat
OTHERS_NAMED, NAME = 8, 80  # pipelines named to a consumer whose own has no worker, and characters of each
MAX_STRANGERS = 10_000  # connections remembered for having been asked or refused

Outgoing = tuple[bytes, m.Message, Sequence[Any]]


@dataclass(eq=False)
class Peer:
    """Who is behind a connection."""

    job: StreamJob
    session: bytes
    pipeline: str = ""
    eager: bool = False  # a worker that may be asked for its stream before any consumer came
    stream: bool = True  # what it was told of that
    worker: Worker | None = None
    group: Group | None = None
    consumer: Consumer | None = None
    epochs: EpochsJob | None = None
    seat: Seat | None = None

    @property
    def client(self) -> Worker | Consumer | Seat | None:
        """What it is, if it was admitted."""
        return self.worker or self.consumer or self.seat


class Core:
    """One broker.

    Args:
        config: its limits.
        wall: returns the wall clock, seconds since the epoch, for the metrics' "last seen".
        store: makes a numbered record of the epochs durable, some time later; None: there is no disk.
        memory: what is shared with clients on this machine; None: nothing.
        codecs: by name, what it can decompress.
    """

    def __init__(
        self,
        config: BrokerConfig,
        wall: Callable[[], float],
        store: Store | None = None,
        memory: Memory | None = None,
        codecs: Mapping[str, Codec] | None = None,
    ) -> None:
        self.config = config
        self.limits = config.limits
        self.instance = secrets.token_bytes(m.SESSION_BYTES)
        self.tally = Tally()
        self.budget = Budget(config.queue_bytes)
        self.jobs: dict[str, StreamJob] = {}
        self.epochs = EpochsDesk(self.budget, self.tally, self._to_session, config.lease_time, self.limits, store)
        self.peers: dict[bytes, Peer] = {}
        self.routes: dict[bytes, bytes] = {}  # session -> connection id
        self.accepting = True
        self.now = 0.0
        self._wall = wall
        self._memory = memory
        self._codecs = codecs or {}
        self._last_time: float | None = None
        self._next_beat = 0.0
        self._out: list[Outgoing] = []
        self._parted: dict[bytes, Peer] = {}  # unreachable, but their goodbye may still lie unread
        self._scolded: set[bytes] = set()  # told once that their messages are bad; afterwards only counted
        self._asked: dict[bytes, float] = {}  # connections, and when they were asked who they are
        self._ask_again: set[bytes] = set()  # connections that were to be asked too soon after
        self._greeted: Counter[bytes] = Counter()  # hellos of each connection since the last beat
        self._handlers: dict[type[m.Message], Callable[[Peer, Any, Sequence[Any]], None]] = {
            m.Offer: self._on_offer,
            m.Block: self._on_block,
            m.Fail: self._on_fail,
            m.Finish: self._on_finish,
            m.WorkerBeat: self._on_worker_beat,
            m.Done: self._on_done,
            m.Bye: self._on_bye,
            m.MemoryWanted: self._on_memory,
            m.PoolOffer: self._on_memory,
            m.PoolMapped: self._on_memory,
            e.Claim: self._on_claim,
            e.Farewell: self._on_farewell,
            **dict.fromkeys(get_args(WorkerMessage), self._on_worker_message),
        }

    # ------------------------------------------------------------------ events

    def receive(self, connection: bytes, frames: Sequence[Any]) -> None:
        """Take a message in: frames are objects with the buffer protocol; they are kept, not copied."""
        if len(frames) == 1 and len(frames[0]) == 0:  # libzmq's probe: a connection was made, or made again
            self._ask(connection)
            return
        try:
            self._handle(connection, frames)
        except WireError as error:
            self._bad(connection, error)

    def unreachable(self, connection: bytes) -> None:
        """A message could not be sent: the connection is gone."""
        self._scolded.discard(connection)
        self._asked.pop(connection, None)
        self._ask_again.discard(connection)
        if connection in self.peers:
            if len(self._parted) > MAX_STRANGERS:
                self._parted.clear()
            self._parted[connection] = self.peers[connection]
        self._disconnect(connection)

    def _disconnect(self, connection: bytes) -> None:
        name, peer = self._name(connection), self.peers.pop(connection, None)
        if peer is None or self.routes.get(peer.session) != connection:
            return
        del self.routes[peer.session]
        if peer.client is not None:  # else it was turned away at once, and may come again and again
            log.info("%s is not connected any more", name)
        if peer.worker is not None:
            peer.job.worker_unreachable(peer.worker, self.now)
            self.epochs.worker_unreachable(peer.pipeline, peer.session)
        elif peer.epochs is not None and peer.seat is not None:
            peer.epochs.rank_unreachable(peer.seat)
        elif peer.consumer is not None:
            peer.job.consumer_unreachable(peer.consumer, self.now)

    def tick(self, monotonic: float, *, drained: bool = True) -> None:
        """Advance the clock to a monotonic time in seconds, by a capped step; do what is due.

        Args:
            drained: all that had arrived was taken in; else a worker may only seem late.
        """
        last = monotonic if self._last_time is None else self._last_time
        self._last_time = monotonic
        self.now += min(monotonic - last, MAX_STEP)
        if self.now < self._next_beat:
            return
        self._next_beat = self.now + BEAT
        self._greeted.clear()
        again, self._ask_again = self._ask_again, set()
        for connection in again:
            self._asked.pop(connection, None)
            self._ask(connection)
        for pipeline, job in self.jobs.items():
            before = list(job.intake.live())
            job.tick(self.now)
            for worker in before:
                if not worker.live:  # unreachable for too long
                    self.epochs.worker_gone(pipeline, worker.session)
        self.epochs.tick(self.now, drained=drained)
        for connection, peer in self.peers.items():
            self._reply(connection, self._beat(peer))
        self._forget()

    def saved(self, number: int) -> None:
        """All records up to a number are on the disk."""
        self.epochs.saved(number)

    def drain(self) -> list[Outgoing]:
        """Return what is to be sent now: (connection id, message, block frames); to each connection in order.

        Blocks are copied as they are sent, which takes as long as some MiB take to arrive. So those who get none are
        told first: a worker's credit does not wait, nor its connection meanwhile.
        """
        for job in self.jobs.values():
            job.pump(self.now, grant=self.accepting)
        self.epochs.pump(self.now, grant=self.accepting)
        out, self._out = self._out, []
        fed = {connection for connection, _, frames in out if frames}
        return sorted(out, key=lambda each: each[0] in fed)

    def _beat(self, peer: Peer) -> m.Message:
        if peer.epochs is not None and peer.seat is not None:
            beat = replace(peer.epochs.beat(peer.seat), lost=peer.job.lost())
        elif peer.consumer and peer.group:
            beat = peer.job.beat(peer.group, peer.consumer)
        else:
            return m.Beat()
        return beat if beat.producers else replace(beat, others=self._served(but=peer.pipeline))

    def _served(self, but: str) -> list[str]:
        """Return other pipelines that have a worker: somebody who waits for one may have its name wrong."""
        served = (name for name, job in self.jobs.items() if name != but and any(job.intake.live()))
        return [name[:NAME] for name in islice(served, OTHERS_NAMED)]

    def stop_accepting(self) -> None:
        """Grant nothing more; what is queued still goes out."""
        self.accepting = False

    # ------------------------------------------------------------------ messages

    def _handle(self, connection: bytes, frames: Sequence[Any]) -> None:
        if len(frames) < 2:
            raise WireError("frames", f"a message of {len(frames)} frames")
        if len(frames) > self.limits.max_frames:
            raise WireError("limits", f"a message of {len(frames)} frames exceeds {self.limits.max_frames}")
        if len(frames[0]) > m.HEADER_BYTES or len(frames[1]) > m.MAX_CONTROL_BODY:
            raise WireError("limits", "control frames are too large")
        header, block = bytes(frames[0]), frames[2:]
        if m.is_compressed(header):
            header, block = m.without_compression(header), Compressed(block, self._codecs)
        elif m.is_in_memory(header):
            header = m.without_memory(header)
            block = self._memory.pools.frames(connection, block) if self._memory and connection in self.peers else block
        message = m.decode(header, bytes(frames[1]), len(block))
        if isinstance(message, (m.ProducerHello, m.ConsumerHello, e.EpochsHello)):
            self._hello(connection, message)
        elif isinstance(message, m.Obituary):
            self._obituary(message)
        elif (peer := self.peers.get(connection)) is None:
            self._from_nobody(connection, message)
        else:
            handler = self._handlers.get(type(message))
            if handler is None:
                raise WireError("kind", f"a client may not send {type(message).__name__}")
            handler(peer, message, block)
            self._after(connection, peer)

    def _from_nobody(self, connection: bytes, message: m.Message) -> None:
        """Ask who it is; but a client that said goodbye and closed is found unreachable before that is read."""
        parted = self._parted.get(connection)
        if isinstance(message, m.Bye) and parted is not None and parted.session not in self.routes:
            del self._parted[connection]
            self._on_bye(parted, message, ())
        else:
            self._ask(connection)

    def _after(self, connection: bytes, peer: Peer) -> None:
        worker = peer.worker
        if worker is not None:
            self.tally.producer(worker.name).last_seen = self._wall()
            if worker.resync and not worker.asked:
                worker.asked = True
                self._reply(connection, m.Who())

    def _hello(self, connection: bytes, hello: m.ProducerHello | m.ConsumerHello | e.EpochsHello) -> None:
        self._greeted[connection] += 1
        if self._greeted[connection] > MAX_HELLOS:
            return  # it will say it again; one that never reads must not fill our memory with welcomes
        self._ask_again.discard(connection)
        if self._memory is not None and not isinstance(hello, m.ProducerHello):
            self._memory.drop(connection)  # it has unmapped all, and will ask for memory again
        peer = Peer(self._job(hello.pipeline), hello.session, hello.pipeline)
        if len(hello.session) != m.SESSION_BYTES:
            raise WireError("body", "a hello without a session id")
        if isinstance(hello, m.ProducerHello):
            self._worker_hello(connection, peer, hello)
        elif isinstance(hello, e.EpochsHello):
            self._rank_hello(connection, peer, hello)
        else:
            self._consumer_hello(connection, peer, hello)

    def _worker_hello(self, connection: bytes, peer: Peer, hello: m.ProducerHello) -> None:
        worker = peer.worker = peer.job.worker_hello(hello, self.now)
        self.tally.producer(hello.name).last_seen = self._wall()
        if self._bind(connection, peer):
            log.info("worker %s is here for pipeline %r", hello.name, hello.pipeline)
        peer.eager = hello.eager
        peer.stream = self._wants_stream(peer)
        room, largest = self.budget.total - BLOCK_OVERHEAD, self.limits.max_frame
        machine = "" if self._memory is None else self._memory.machine
        welcome = m.ProducerWelcome(
            self.instance, worker.received, largest, room, peer.stream, list(self._codecs), machine
        )
        self._reply(connection, welcome)
        if worker.live:
            self.epochs.worker_here(peer.pipeline, peer.session, worker.name, worker.host, self.now)

    def _consumer_hello(self, connection: bytes, peer: Peer, hello: m.ConsumerHello) -> None:
        self._check_consumer(hello)
        ours = hello.broker == self.instance
        received, done = (hello.received, hello.done) if ours else (0, 0)
        group, consumer = peer.group, peer.consumer = peer.job.consumer_hello(hello, received, done)
        self.tally.group(hello.group).last_seen = self._wall()
        if self._bind(connection, peer):
            log.info("consumer %s is here, of group %r of pipeline %r", hello.name, hello.group, hello.pipeline)
        self._reply(connection, m.ConsumerWelcome(self.instance))
        peer.job.catch_up(group, consumer, received)
        self._reply(connection, peer.job.beat(group, consumer))
        self._tell_what_is_wanted()

    def _rank_hello(self, connection: bytes, peer: Peer, hello: e.EpochsHello) -> None:
        new = self._bind(connection, peer)  # first: it is answered by its session
        try:
            peer.epochs, peer.seat = self.epochs.hello(hello, self.now)
        except WireError as error:
            if error.reason != "taken":
                raise
            self._reply(connection, m.Refused(error.reason, str(error)))  # each time: it will try again
            self._disconnect(connection)
            return
        self.tally.group(hello.group).last_seen = self._wall()
        if new:
            log.info("rank %d of group %r of pipeline %r is here", hello.rank, hello.group, hello.pipeline)
        self._tell_what_is_wanted()

    def _wants_stream(self, peer: Peer) -> bool:
        return bool(peer.job.groups) or (peer.eager and not self.epochs.wants(peer.pipeline))

    def _tell_what_is_wanted(self) -> None:
        """Tell workers whose pipeline's stream is wanted now and was not, or the other way round."""
        for connection, peer in self.peers.items():
            if peer.worker is not None and peer.stream is not (wanted := self._wants_stream(peer)):
                peer.stream = wanted
                self._reply(connection, m.Wanted(wanted))
        for pipeline, job in self.jobs.items():
            if not job.groups and self.epochs.wants(pipeline):
                job.retire()

    def _check_consumer(self, hello: m.ConsumerHello) -> None:
        if hello.lag not in ("wait", "skip") or hello.hwm < 1:
            raise WireError("config", f"lag={hello.lag!r}, hwm={hello.hwm}: lag is wait or skip, hwm at least 1")

    def _bind(self, connection: bytes, peer: Peer) -> bool:
        """Answer a session by a connection. Tells whether it had none."""
        before = self.peers.get(connection)
        if before is not None and before.session != peer.session:
            self._disconnect(connection)
        old = self.routes.get(peer.session)
        if old is not None and old != connection:
            self.peers.pop(old, None)
        self._parted.pop(connection, None)
        self.peers[connection] = peer
        self.routes[peer.session] = connection
        return old is None

    def _job(self, pipeline: str) -> StreamJob:
        job = self.jobs.get(pipeline)
        if job is None:
            if len(self.jobs) >= MAX_JOBS:
                raise WireError("limits", f"there are {MAX_JOBS} pipelines already; {pipeline[:80]!r} is one too many")
            job = self.jobs[pipeline] = StreamJob(self.budget, self.tally, self._to_session, self.config.liveness)
        return job

    def _obituary(self, message: m.Obituary) -> None:
        for pipeline, job in self.jobs.items():
            worker = job.intake.workers.get(message.session)
            if worker is not None and worker.live:
                log.warning("worker %s died: %s", worker.name, message.reason)
                self.epochs.worker_gone(pipeline, message.session, message.at)
                job.worker_gone(worker, self.now, message.reason or "died")

    def _on_offer(self, peer: Peer, message: m.Offer, _frames: Sequence[Any]) -> None:
        peer.job.intake.offer(_worker(peer), message.first, message.sizes)

    def _on_block(self, peer: Peer, message: m.Block, frames: Sequence[Any]) -> None:
        worker, intake = _worker(peer), peer.job.intake
        found = arrived(
            frames, message.pieces, message.count, self.limits, lambda n: intake.judge(worker, message.seq, n) == "new"
        )
        if peer.job.block(worker, message, found.frames, found.nbytes):
            self.tally.producer(worker.name).on_wire += found.on_wire

    def _on_fail(self, peer: Peer, message: m.Fail, _frames: Sequence[Any]) -> None:
        peer.job.fail(_worker(peer), message, self.now)

    def _on_finish(self, peer: Peer, message: m.Finish, _frames: Sequence[Any]) -> None:
        peer.job.finish(_worker(peer), message, self.now)

    def _on_worker_beat(self, peer: Peer, message: m.WorkerBeat, _frames: Sequence[Any]) -> None:
        peer.job.worker_beat(_worker(peer), message)

    def _on_done(self, peer: Peer, message: m.Done, _frames: Sequence[Any]) -> None:
        group, consumer = _consumer(peer)
        self.tally.group(group.name).last_seen = self._wall()
        peer.job.done(group, consumer, message)

    def _on_bye(self, peer: Peer, message: m.Bye, _frames: Sequence[Any]) -> None:
        if peer.worker is not None:
            self.epochs.worker_gone(peer.pipeline, peer.session)
            peer.job.worker_gone(peer.worker, self.now, "")
        elif peer.seat is None:
            peer.job.consumer_bye(*_consumer(peer), message, self.now)
        connection = self.routes.pop(peer.session, None)
        if connection is not None:
            log.info("%s has left", self._name(connection))
            self.peers.pop(connection, None)

    def _on_claim(self, peer: Peer, message: e.Claim, _frames: Sequence[Any]) -> None:
        job, seat = _rank(peer)
        self.tally.group(job.group).last_seen = self._wall()
        job.claim(seat, message)

    def _on_farewell(self, peer: Peer, message: e.Farewell, _frames: Sequence[Any]) -> None:
        job, seat = _rank(peer)
        job.farewell(seat, message)  # and is still known, for it is answered

    def _on_memory(self, peer: Peer, message: AboutMemory, _frames: Sequence[Any]) -> None:
        if isinstance(message, m.PoolOffer) is (peer.worker is None):
            raise WireError("kind", "workers offer pools, and consumers ask for memory")
        connection = self.routes[peer.session]
        if self._memory is not None and (answer := self._memory.hear(connection, message)) is not None:
            self._reply(connection, answer)

    def _on_worker_message(self, peer: Peer, message: WorkerMessage, frames: Sequence[Any]) -> None:
        refusal = self.epochs.heard(peer.pipeline, _worker(peer).session, message, frames, self.now)
        if refusal:
            log.error("worker %s cannot serve epochs of %r: %s", _worker(peer).name, peer.pipeline, refusal)

    # ------------------------------------------------------------------ replies

    def _ask(self, connection: bytes) -> None:
        """Ask a connection who it is, once a beat: one that never reads must not fill our memory with questions."""
        if self.now < self._asked.get(connection, -BEAT) + BEAT:
            self._ask_again.add(connection)  # with the next beat: it may have lost something since
            return
        if len(self._asked) > MAX_STRANGERS:
            self._asked.clear()
            self._ask_again.clear()
        self._asked[connection] = self.now
        self._reply(connection, m.Who())

    def _bad(self, connection: bytes, error: WireError) -> None:
        """Count a bad message, answer and log the first of each peer, and forget what is known of the connection."""
        if error.reason not in ("config", "expired"):
            self.tally.bad[error.reason] += 1
        if connection not in self._scolded or error.reason == "expired":  # which asks for another hello
            if len(self._scolded) > MAX_STRANGERS:
                self._scolded.clear()
            self._scolded.add(connection)
            log.warning("refused %s (%s): %s", self._name(connection), error.reason, error)
            self._reply(connection, m.Refused(error.reason, str(error)))
        self._disconnect(connection)

    def _name(self, connection: bytes) -> str:
        peer = self.peers.get(connection)
        if peer is None or peer.client is None:
            return connection.hex()[:32]
        return peer.client.name if peer.seat is None else f"{peer.seat.who} of pipeline {peer.pipeline!r}"

    def _reply(self, connection: bytes, message: m.Message) -> None:
        self._out.append((connection, message, ()))

    def _to_session(self, session: bytes, message: m.Message, frames: Sequence[Any]) -> None:
        connection = self.routes.get(session)
        if connection is not None:  # else its hello will bring what it missed
            self._out.append((connection, message, frames))

    def _forget(self) -> None:
        producers = {worker.name for job in self.jobs.values() for worker in job.intake.live()}
        groups = {name for job in self.jobs.values() for name, group in job.groups.items() if group.connected}
        self.tally.forget(self._wall() - FORGET, producers, groups)


def _worker(peer: Peer) -> Worker:
    if peer.worker is None:
        raise WireError("kind", "a consumer sent a producer's message")
    return peer.worker


def _consumer(peer: Peer) -> tuple[Group, Consumer]:
    if peer.consumer is None or peer.group is None:
        raise WireError("kind", "a producer sent a consumer's message")
    return peer.group, peer.consumer


def _rank(peer: Peer) -> tuple[EpochsJob, Seat]:
    if peer.epochs is None or peer.seat is None:
        raise WireError("kind", "a message of epochs mode from a client that is no rank")
    return peer.epochs, peer.seat
