"""Owns all jobs in epochs mode of one broker: which group asks for which pipeline, and whose message is whose. Pure."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dfserve.broker.arrival import arrived
from dfserve.broker.budget import Budget
from dfserve.broker.tally import Tally
from dfserve.errors import LedgerError, WireError
from dfserve.wire import epoch_messages as e
from dfserve.wire.limits import Limits

if TYPE_CHECKING:
    from dfserve.broker.epochs_job import EpochsJob
    from dfserve.broker.production import Send
    from dfserve.broker.seats import Seat

log = logging.getLogger("dfserve.broker")

MAX_JOBS = 64  # groups in epochs mode whose positions are kept
# Part of the broker's bytes that a group has at least. The first has a half and each of the next a half of what is
# left, so that eight may be at work at once.
LEAST_SHARE = 256
FORM = 1  # of the record on disk

Store = Callable[[int, bytes], None]
WorkerMessage = e.Made | e.MadeNothing | e.NotMade | e.LeaseBeat | e.Dropped | e.Source


class EpochsDesk:
    """The jobs in epochs mode.

    Each has a share of the broker's bytes of its own, so that a job that nobody reads holds no other one up: the first
    half of them, the next half of the rest, and so on. Streams have what is left. When a group comes, those of which
    nobody is there give their shares back: they rest, as they would if the broker had died, and go on from their
    records when somebody comes back to them.

    Args:
        budget: of the whole broker; what jobs take is taken off its total.
        send: called with (session, message, block frames).
        lease_time: seconds without progress after which a worker's leases go to others.
        limits: of a block.
        store: makes (number, payload) durable some time later, when `saved` is to be called; None: there is no disk.
    """

    def __init__(
        self, budget: Budget, tally: Tally, send: Send, lease_time: float, limits: Limits, store: Store | None = None
    ) -> None:
        self.jobs: dict[tuple[str, str], EpochsJob] = {}
        self._budget = budget
        self._least = budget.total // LEAST_SHARE
        self._tally = tally
        self._send = send
        self._lease_time = lease_time
        self._limits = limits
        self._store = store
        self._stored = 0  # number of the last record
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        self._unsaved = False
        self._workers: dict[str, dict[bytes, tuple[str, str]]] = {}  # by pipeline and session: name and host

    # ------------------------------------------------------------------ ranks

    def hello(self, hello: e.EpochsHello, now: float) -> tuple[EpochsJob, Seat]:
        """Take a rank in.

        Raises:
            WireError: reason ``config`` or ``taken``, as `EpochsJob.rank_hello`, or ``limits``.
        """
        name = (hello.pipeline, hello.group)
        job = self.jobs.get(name)
        if job is None:
            self._make_place(name)
            job = self.jobs[name] = self._job(name, self._share_of(name))
            if (record := self._records.get(name)) is not None:
                job.restore(record)
            for session, (worker, host) in self._workers.get(hello.pipeline, {}).items():
                job.production.worker_here(session, worker, host, now)
        return job, job.rank_hello(hello, now)

    def wants(self, pipeline: str) -> bool:
        """Whether a group asks for a pipeline."""
        return any(name[0] == pipeline for name in (*self.jobs, *self._records))

    def _make_place(self, coming: tuple[str, str]) -> None:
        """Let jobs rest of which nobody is there, and forget the positions that are one too many."""
        for name, job in list(self.jobs.items()):
            if job.may_rest:
                self._rest(name, job)
        kept = {*self.jobs, *self._records, coming}
        resting = [name for name in self._records if name not in self.jobs and name != coming]
        for name in resting[: max(0, len(kept) - MAX_JOBS)]:
            log.warning("group %r of pipeline %r is forgotten: %d others came after it", name[1], name[0], MAX_JOBS)
            del self._records[name]
            self._unsaved = True

    def _rest(self, name: tuple[str, str], job: EpochsJob) -> None:
        log.info("nobody is there of group %r of pipeline %r: its memory is free for others", name[1], name[0])
        self._tally.in_doubt += job.in_doubt
        record = job.rest()
        self._records.pop(name, None)
        if record is not None:
            self._records[name] = record  # as the last
        self._budget.total += job.production.budget.total
        del self.jobs[name]

    def _share_of(self, name: tuple[str, str]) -> Budget:
        share = self._budget.total // 2
        if share < self._least:
            raise WireError(
                "config",
                f"{len(self.jobs)} groups in epochs mode are at work at this broker and share its memory; what is left"
                f" for group {name[1]!r}, {share} bytes, is too little: close one of the others, or use another broker",
            )
        self._budget.total -= share
        return Budget(share)

    def _job(self, name: tuple[str, str], budget: Budget) -> EpochsJob:
        from dfserve.broker.epochs_job import EpochsJob  # here: a broker of streams starts without it

        def save(record: dict[str, Any]) -> int:
            self._records[name] = record
            self._unsaved = True
            return self._stored + 1

        save_or_none = None if self._store is None else save
        return EpochsJob(name, budget, self._tally, self._send, self._lease_time, save=save_or_none)

    # ------------------------------------------------------------------ workers

    def worker_here(self, pipeline: str, session: bytes, name: str, host: str, now: float) -> None:
        """Take a worker in, or back."""
        self._workers.setdefault(pipeline, {})[session] = (name, host)
        for job in self._of(pipeline):
            job.production.worker_here(session, name, host, now)

    def worker_unreachable(self, pipeline: str, session: bytes) -> None:
        """Note that a worker's connection is gone; it may come back."""
        for job in self._of(pipeline):
            job.production.worker_unreachable(session)

    def worker_gone(self, pipeline: str, session: bytes, at: Sequence[int] = ()) -> None:
        """Give a worker up; ``at``: epoch and position of the item that it died at."""
        self._workers.get(pipeline, {}).pop(session, None)
        for job in self._of(pipeline):
            job.production.worker_gone(session, at)

    def heard(self, pipeline: str, session: bytes, message: WorkerMessage, frames: Sequence[Any], now: float) -> str:
        """Take in what a worker says of its leases or its source. Returns why it is refused, or "".

        Raises:
            WireError: the message or its block breaks the protocol.
        """
        jobs = list(self._of(pipeline))
        if not jobs and isinstance(message, e.Made | e.MadeNothing | e.NotMade):
            self._tally.fenced += 1
            self._send(session, e.Taken([message.lease]), ())  # its group rests: it may forget what it made
        if isinstance(message, e.Source):
            return next(filter(None, [job.production.describe(session, message) for job in jobs]), "")
        for job in jobs:
            if isinstance(message, e.LeaseBeat):
                job.production.beat(session, message, now)
            elif isinstance(message, e.Dropped):
                job.production.dropped(session, message.leases)
            elif message.generation == job.generation or job is jobs[-1]:
                self._brought(job, session, message, frames, now)
                break
        return ""

    def _brought(
        self,
        job: EpochsJob,
        session: bytes,
        message: e.Made | e.MadeNothing | e.NotMade,
        frames: Sequence[Any],
        now: float,
    ) -> None:
        if isinstance(message, e.NotMade):
            job.production.not_made(session, message, now)
            return
        production = job.production
        if isinstance(message, e.MadeNothing):
            production.made(session, message, frames, now)
            return
        found = arrived(
            frames, message.pieces, message.outputs, self._limits, lambda n: production.expects(session, message, n)
        )
        if production.made(session, message, found.frames, now):
            self._tally.producer(production.lessees.workers[session].name).on_wire += found.on_wire

    def _of(self, pipeline: str) -> Iterable[EpochsJob]:
        return [job for name, job in self.jobs.items() if name[0] == pipeline]

    # ------------------------------------------------------------------ time, and what follows

    def tick(self, now: float, *, drained: bool) -> None:
        """Do what time brings."""
        for job in self.jobs.values():
            job.tick(now, drained=drained)

    def pump(self, now: float, *, grant: bool) -> None:
        """Do all that has become possible; hand records to the disk."""
        for job in self.jobs.values():
            job.pump(now, grant=grant)
        if self._unsaved and self._store is not None:
            self._unsaved = False
            self._stored += 1
            jobs = [[*name, record] for name, record in self._records.items()]
            self._store(self._stored, json.dumps({"form": FORM, "jobs": jobs}).encode())

    def saved(self, number: int) -> None:
        """All records up to ``number`` are durable; what follows from it comes with the next pump."""
        for job in self.jobs.values():
            job.saved(number)

    def restore(self, number: int, payload: bytes) -> None:
        """Go on from a record that an earlier broker made durable.

        Raises:
            LedgerError: it is none of this version.
        """
        try:
            found = json.loads(payload)
            if found["form"] != FORM:
                raise LedgerError(f"the ledger's records have form {found['form']}, and this dfserve reads {FORM}")
            for pipeline, group, record in found["jobs"]:
                self._job((pipeline, group), Budget(0)).restore(record)  # a trial: it goes on when a rank comes
                self._records[pipeline, group] = record
        except (ValueError, TypeError, LookupError, WireError) as error:
            raise LedgerError(
                f"the ledger's record is not one of dfserve's: {type(error).__name__}: {error}"
            ) from error
        self._stored = number
