"""Owns a job in stream mode: which block goes to whom, what is freed when, and when the stream ends. Pure: no sockets.

Fed with events and a clock; what it wants to say leaves through the ``send`` it was given. The clock is the broker's:
it stands still while the broker is suspended, so that nobody expires for a pause that was not theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from dfserve.broker.budget import BLOCK_OVERHEAD, Budget, charge_of
from dfserve.broker.group import Consumer, End, Entry, Group, Parcel
from dfserve.broker.intake import Intake, State, Worker
from dfserve.broker.tally import Tally
from dfserve.errors import WireError
from dfserve.window import Window
from dfserve.wire.messages import (
    Block,
    Bye,
    ConsumerBeat,
    ConsumerHello,
    Credit,
    Deliver,
    DeliverEnd,
    DeliverFailure,
    Done,
    Fail,
    Finish,
    Message,
    ProducerHello,
    WorkerBeat,
)

# How long the end waits for blocks that other consumers hold, so that those of one that dies meanwhile still go to a
# live one. Not for ever: `zip` over two consumers must end, and so must ranks that wait for one another.
END_HOLD = 5.0  # seconds
# A worker that ended is remembered this long after every group has heard of its end: it may still come back.
DESERTED = 300.0  # seconds without a consumer after which a group is forgotten
MAX_WORKERS, MAX_GROUPS = 10_000, 1_000  # a hostile client must not make the broker keep more; an honest job has tens
REMEMBER = 600.0  # seconds
BROKEN_NAMED = 50  # workers named in an end; the message has a limit
LOST_NAMED = 3  # lost workers named in a consumer's beat
_WITHOUT_REASON = {State.SUSPECT: "its connection is gone", State.GONE: "left", State.FINISHED: "ended"}

Send = Callable[[bytes, Message, Sequence[Any]], None]


class StreamJob:
    """One pipeline's stream: workers in, groups out, a byte budget between them.

    Args:
        budget: bytes for everything that is granted, queued or handed out and not acknowledged.
        tally: the counters to keep.
        send: called with (session, message, block frames).
        liveness: seconds without a connection after which a client is given up.
    """

    def __init__(self, budget: Budget, tally: Tally, send: Send, liveness: float) -> None:
        self.budget = budget
        self.tally = tally
        self.intake = Intake(budget)
        self.groups: dict[str, Group] = {}
        self.backlog: deque[Entry] = deque()  # what came before there was any group
        self.queued_bytes = 0
        self._opened = False  # there has been a group
        self._retired = False  # nobody wants the stream: its pipeline serves epochs
        self._send = send
        self._liveness = liveness

    # ------------------------------------------------------------------ workers

    def worker_hello(self, hello: ProducerHello, now: float) -> Worker:
        """Take a worker in or back."""
        if hello.session not in self.intake.workers and len(self.intake.workers) >= MAX_WORKERS:
            raise WireError("limits", f"this broker knows {MAX_WORKERS} workers of the pipeline already")
        worker, new = self.intake.hello(hello, now)
        if new:
            self.tally.uncertain += hello.uncertain
            self.tally.producer(worker.name).restarts = hello.restarts
        if worker.live:  # also one that was given up and comes back: another end is to follow
            for group in self.groups.values():
                group.last_end = None
                group.seen.discard(worker.session)
        return worker

    def block(self, worker: Worker, message: Block, frames: Sequence[Any], nbytes: int) -> bool:
        """Take a block in, whose frames have ``nbytes`` bytes. False: it is here already, or comes too early."""
        if not self._accept(worker, message.seq, nbytes):
            return False
        producer = self.tally.producer(worker.name)
        producer.datapoints += message.count
        producer.nbytes += nbytes
        self._queue(Entry(worker, frames, message.count, nbytes, charge_of(nbytes)))
        return True

    def fail(self, worker: Worker, message: Fail, now: float) -> None:
        """Take in that a pipeline raised."""
        if self._accept(worker, message.seq, message.nbytes):
            self.tally.errors["pipeline"] += 1
            self._queue(Entry(worker, (), 0, 0, charge_of(message.nbytes), failure=message))
            if message.fatal:
                worker.raised = True
                worker.enter(State.BROKEN, now, f"{message.kind} at {message.key}")

    def finish(self, worker: Worker, message: Finish, now: float) -> None:
        """Take in that a worker's last pass ended cleanly."""
        if self._accept(worker, message.seq, 0):
            self.budget.give_back(BLOCK_OVERHEAD)
            worker.released += 1
            worker.enter(State.FINISHED, now)

    def worker_beat(self, worker: Worker, message: WorkerBeat) -> None:
        """Keep what a worker reports of itself. An offer, grant or block that never came is asked for or said again."""
        producer = self.tally.producer(worker.name)
        producer.blocked_seconds += max(0.0, message.blocked - worker.blocked)
        worker.blocked = max(worker.blocked, message.blocked)
        if worker.live and (message.offered > worker.offered or message.sent > worker.received):
            worker.resync = True
        worker.credit_due |= message.granted < worker.granted
        worker.asked = False  # if it has still to say hello: the question may have been lost

    def worker_gone(self, worker: Worker, now: float, reason: str) -> None:
        """A worker left on its own accord (no reason given), or is given up. Either breaks off a finite pass."""
        self.intake.void_grants(worker)
        if not worker.live:
            return
        if reason:
            self.tally.errors["worker_lost"] += 1
        if worker.passes:
            worker.enter(State.BROKEN, now, reason or "left in the middle of its pass")
        else:
            worker.enter(State.GONE, now, reason)

    def worker_unreachable(self, worker: Worker, now: float) -> None:
        """The connection of a worker is gone; its bytes come back at once."""
        self.intake.void_grants(worker)
        if worker.state is State.LIVE:
            worker.enter(State.SUSPECT, now)

    def _accept(self, worker: Worker, seq: int, nbytes: int) -> bool:
        verdict = self.intake.take(worker, seq, nbytes)
        self.tally.duplicate += verdict == "duplicate"
        return verdict == "new"

    def _queue(self, entry: Entry) -> None:
        self.queued_bytes += entry.charge
        entry.holders.update(self.groups.values())
        for group in self.groups.values():
            group.pending.append(Parcel(entry))
        if not self.groups:
            self.backlog.append(entry)

    # ------------------------------------------------------------------ consumers

    def consumer_hello(self, hello: ConsumerHello, received: int, done: int) -> tuple[Group, Consumer]:
        """Take a consumer in, or back after its connection broke: it has ``received`` and ``done`` of our deliveries.

        Raises:
            WireError: ``reason`` "config": it disagrees with its group; "expired": what it held went to others.
        """
        self._retired = False
        group = self._group(hello)
        consumer = group.consumers.get(hello.session)
        if consumer is None:
            if received:
                raise WireError("expired", f"{hello.name} was away for too long; what it held went to others")
            consumer = Consumer(hello.session, hello.name, Window(hello.hwm))
        self._acknowledge(group, consumer, done)
        consumer.suspect_since = None
        group.consumers[hello.session] = consumer
        return group, consumer

    def catch_up(self, group: Group, consumer: Consumer, received: int) -> None:
        """Send again what a consumer that came back has not received; tell a latecomer of an end that was."""
        for delivery, parcel in list(consumer.unacked):
            if delivery > received:
                self._say(consumer, delivery, parcel)
        if consumer.sent == 0 and group.last_end is not None:
            self._say(consumer, consumer.push(group.last_end), group.last_end)

    def _group(self, hello: ConsumerHello) -> Group:
        group = self.groups.get(hello.group)
        if group is None:
            if len(self.groups) >= MAX_GROUPS:
                raise WireError("limits", f"this broker has {MAX_GROUPS} groups of the pipeline already")
            group = Group(hello.group, hello.lag, hello.min_producers)
            self._open(group)
        for name in ("lag", "min_producers"):
            if getattr(group, name) != getattr(hello, name):
                if group.consumers and hello.session not in group.consumers:
                    raise WireError(
                        "config",
                        f"consumers of group {group.name!r} disagree on {name}: {getattr(group, name)!r} there, "
                        f"{getattr(hello, name)!r} here; give all of them the same, or use another group",
                    )
                setattr(group, name, getattr(hello, name))
        return group

    def _open(self, group: Group) -> None:
        """The first group has what came before it; a later one starts at now."""
        first, self._opened = not self._opened, True
        if not first:
            finished, broken = self.intake.ended(set())
            group.seen = {worker.session for worker in finished + broken}
        for entry in self.backlog:
            entry.holders.add(group)
            group.pending.append(Parcel(entry))
        self.backlog.clear()
        self.groups[group.name] = group

    def done(self, group: Group, consumer: Consumer, message: Done) -> None:
        """A consumer has handed out everything up to a delivery."""
        tally = self.tally.group(group.name)
        tally.waited_seconds += max(0.0, message.waited - consumer.waited)
        consumer.waited = max(consumer.waited, message.waited)
        self._acknowledge(group, consumer, message.done)

    def consumer_bye(self, group: Group, consumer: Consumer, message: Bye, now: float) -> None:
        """A consumer leaves: what it has not handed out goes to the others, without doubt."""
        self._acknowledge(group, consumer, message.done)
        if consumer.unacked and isinstance(parcel := consumer.unacked[0][1], Parcel):
            handed = min(message.partial, parcel.count)
            parcel.skip += handed
            self.tally.group(group.name).datapoints += handed
        group.take_back(consumer, again=False)
        self._left(group, now)

    def consumer_unreachable(self, consumer: Consumer, now: float) -> None:
        """The connection of a consumer is gone."""
        if consumer.suspect_since is None:
            consumer.suspect_since = now

    def _acknowledge(self, group: Group, consumer: Consumer, done: int) -> None:
        if done > consumer.sent:
            raise WireError("body", f"{consumer.name} acknowledged delivery {done} of {consumer.sent}")
        tally = self.tally.group(group.name)
        while consumer.unacked and consumer.unacked[0][0] <= done:
            parcel = consumer.pop()
            if isinstance(parcel, Parcel):
                tally.datapoints += parcel.count
                tally.nbytes += parcel.entry.nbytes
                self._release(parcel.entry, group)
        consumer.done = max(consumer.done, done)

    def _release(self, entry: Entry, group: Group) -> None:
        if group not in entry.holders:
            return
        entry.holders.discard(group)
        if not entry.holders:
            self._free(entry)

    def _free(self, entry: Entry) -> None:
        entry.holders.clear()
        entry.frames = ()
        self.budget.give_back(entry.charge)
        self.queued_bytes -= entry.charge
        entry.worker.released += 1
        entry.worker.credit_due = True

    def retire(self) -> None:
        """Let go of what came before there was a consumer: the pipeline is wanted in epochs, and nobody streams it."""
        self._retired = True
        while self.backlog:
            self._free(self.backlog.popleft())

    # ------------------------------------------------------------------ what follows from it

    def pump(self, now: float, *, grant: bool = True) -> None:
        """Do everything that has become possible: grant, deliver, end. Call it after each batch of events."""
        grant &= not self._retired
        needed = self.intake.grant() if grant else 0
        while needed and self._make_room(needed, now):
            needed = self.intake.grant()
        # All consumers' shares are half of the budget, see Consumer.has_room.
        share = self.budget.total // (2 * max(1, sum(len(group.consumers) for group in self.groups.values())))
        for group in self.groups.values():
            self._deliver(group, share)
            self._maybe_end(group, now)
        for worker in self.intake.workers.values():
            if worker.credit_due:
                worker.credit_due = False
                self._send(worker.session, Credit(worker.received, worker.granted, worker.released), ())

    def _deliver(self, group: Group, share: int) -> None:
        while group.pending and (consumer := group.hungriest(share)) is not None:
            parcel = group.next_parcel()
            if parcel is not None:
                group.end_at = None
                self._say(consumer, consumer.push(parcel), parcel)

    def _say(self, consumer: Consumer, delivery: int, parcel: Parcel | End) -> None:
        message: Message
        if isinstance(parcel, End):
            self._send(consumer.session, DeliverEnd(delivery, parcel.finished, parcel.broken), ())
            return
        worker, failure = parcel.entry.worker, parcel.entry.failure
        if failure is None:
            entry = parcel.entry
            message = Deliver(delivery, entry.count, parcel.skip, worker.name, parcel.again)
        else:
            message = DeliverFailure(
                delivery, failure.key, failure.kind, failure.text, failure.traceback, worker.host, worker.name
            )
        self._send(consumer.session, message, parcel.entry.frames)

    def _maybe_end(self, group: Group, now: float) -> None:
        if group.pending or not group.connected or any(self.intake.live()):
            return
        finished, broken = self.intake.ended(group.seen)
        if (not finished and not broken) or len(finished) + len(broken) < group.min_producers:
            return
        if group.end_at is None:
            group.end_at = now + END_HOLD
        holding = [consumer for consumer in group.consumers.values() if consumer.unacked]
        if any(now < group.end_at or not consumer.connected for consumer in holding):
            return  # of those that are unreachable, expiry decides
        group.end_at = None
        group.last_end = end = End(len(finished), [f"{w.name}: {w.reason}" for w in broken[:BROKEN_NAMED]])
        group.seen.update(worker.session for worker in finished + broken)
        for consumer in group.consumers.values():
            self._say(consumer, consumer.push(end), end)

    def _make_room(self, needed: int, now: float) -> bool:
        """Let go of the oldest blocks that only groups wait for which may miss some. Tells whether that made room."""
        idle = {group for group in self.groups.values() if self._may_miss(group, now)}
        for group in idle:
            while group.pending and not self.budget.fits(needed):
                if not self._drop(group.pending[0].entry, idle):
                    break  # a group that misses nothing still wants it, and all that is younger
                group.pending.popleft()
        return self.budget.fits(needed)

    def _may_miss(self, group: Group, now: float) -> bool:
        """Whether a group skips, or is deserted while others read. A connection that has just broken may come back."""
        gone = all(
            c.suspect_since is not None and now - c.suspect_since > self._liveness for c in group.consumers.values()
        )
        return group.lag == "skip" or (gone and self._others(group))

    def _others(self, group: Group) -> bool:
        """Whether another group reads."""
        return any(other.connected for other in self.groups.values() if other is not group)

    def _drop(self, entry: Entry, idle: set[Group]) -> bool:
        """Let an entry go, unless somebody else waits for it or holds it. Tells whether it is gone."""
        if entry.dropped:
            return True
        sent = (parcel for group in idle for c in group.consumers.values() for _, parcel in c.unacked)
        if any(isinstance(parcel, Parcel) and parcel.entry is entry for parcel in sent) or not entry.holders <= idle:
            return False
        for group in entry.holders:
            self.tally.group(group.name).skipped += entry.count
        self._free(entry)
        return True

    # ------------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        """Give up what has been unreachable for too long; forget what ended long ago."""
        for worker in list(self.intake.workers.values()):
            age = now - worker.since
            if worker.state is State.SUSPECT and age > self._liveness:
                self.worker_gone(worker, now, f"not heard from for {age:.0f} s")
            elif age > REMEMBER and self._told_all(worker):
                self._forget(worker)
        for group in list(self.groups.values()):
            self._expire(group, now)
            if self._deserted(group, now):
                self._dissolve(group)

    def _told_all(self, worker: Worker) -> bool:
        """Whether no group has yet to hear of a worker's end."""
        if worker.state is State.GONE:
            return True
        told = all(worker.session in group.seen for group in self.groups.values())
        return not worker.live and self._opened and told

    def _left(self, group: Group, now: float) -> None:
        """A group without consumers: its next ones begin afresh, unless blocks are waiting for them."""
        if group.consumers:
            return
        group.deserted_at = now
        if not group.pending:
            finished, broken = self.intake.ended(group.seen)
            group.seen.update(worker.session for worker in finished + broken)

    def _dissolve(self, group: Group) -> None:
        """Forget a group that has long been deserted, and let go of what waits for it."""
        del self.groups[group.name]
        while (parcel := group.next_parcel()) is not None:
            self.tally.group(group.name).skipped += parcel.count
            self._release(parcel.entry, group)

    def _deserted(self, group: Group, now: float) -> bool:
        """Whether a group has had no consumer for long, and either misses nothing or only holds others' memory."""
        if group.consumers or now - group.deserted_at < DESERTED:
            return False
        return not group.pending or self._others(group)

    def _forget(self, worker: Worker) -> None:
        del self.intake.workers[worker.session]
        for group in self.groups.values():
            group.seen.discard(worker.session)

    def _expire(self, group: Group, now: float) -> None:
        """Move what a lost consumer holds, once there is somebody to move it to, or others whose memory it takes."""
        for consumer in list(group.consumers.values()):
            away = 0.0 if consumer.suspect_since is None else now - consumer.suspect_since
            if away > self._liveness and (group.connected or (away > DESERTED and self._others(group))):
                parcels = group.take_back(consumer, again=True)
                self.tally.errors["consumer_lost"] += 1
                self.tally.redelivered += len(parcels)
                self.tally.in_doubt += sum(parcel.count for parcel in parcels)
                self._left(group, now)

    @property
    def end_unheard(self) -> bool:
        """Whether a consumer that is connected has had everything, and has yet to acknowledge the end."""
        return any(
            consumer.connected and consumer.unacked and all(isinstance(parcel, End) for _, parcel in consumer.unacked)
            for group in self.groups.values()
            for consumer in group.consumers.values()
        )

    def beat(self, group: Group, consumer: Consumer) -> ConsumerBeat:
        """Say what a waiting consumer wants to know."""
        finished, _ = self.intake.ended(group.seen)
        lost = self.lost({worker.session for worker in finished})
        live = sum(1 for _ in self.intake.live())
        return ConsumerBeat(consumer.sent, live, len(finished), lost, group.queued(), self.occupancy)

    def lost(self, but: Collection[bytes] = ()) -> list[str]:
        """Name the last workers that are not here any more, each with the reason; without the sessions in ``but``."""
        workers = self.intake.workers.values()
        gone = [worker for worker in workers if worker.state is not State.LIVE and worker.session not in but]
        gone.sort(key=lambda worker: worker.since)
        return [f"{worker.name} ({worker.reason or _WITHOUT_REASON[worker.state]})" for worker in gone[-LOST_NAMED:]]

    @property
    def occupancy(self) -> float:
        """Bytes queued or handed out and not acknowledged, as a share of the budget: 0 to 1."""
        return self.queued_bytes / self.budget.total
