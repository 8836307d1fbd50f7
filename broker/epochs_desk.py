"""Owns all jobs in epochs mode of one broker: which group asks for which pipeline, and whose message is whose. Pure."""

from __future__ import annotations

import json
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

MAX_JOBS = 64  # groups in epochs mode; each keeps a share of the memory
FORM = 1  # of the record on disk

Store = Callable[[int, bytes], None]
WorkerMessage = e.Made | e.MadeNothing | e.NotMade | e.LeaseBeat | e.Dropped | e.Source


class EpochsDesk:
    """The jobs in epochs mode.

    Each has a share of the broker's bytes of its own, so that a job that nobody reads holds no other one up: the first
    half of them, the next half of the rest, and so on. Streams have what is left.

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
            job = self._new_job(name)
            for session, (worker, host) in self._workers.get(hello.pipeline, {}).items():
                job.production.worker_here(session, worker, host, now)
        return job, job.rank_hello(hello, now)

    def wants(self, pipeline: str) -> bool:
        """Whether a group asks for a pipeline."""
        return any(name[0] == pipeline for name in self.jobs)

    def _new_job(self, name: tuple[str, str]) -> EpochsJob:
        if len(self.jobs) >= MAX_JOBS:
            raise WireError("limits", f"there are {MAX_JOBS} groups in epochs mode; {name} is one too many")
        from dfserve.broker.epochs_job import EpochsJob  # here: a broker of streams starts without it

        share = self._budget.total // 2
        self._budget.total -= share

        def save(record: dict[str, Any]) -> int:
            self._records[name] = record
            self._unsaved = True
            return self._stored + 1

        save_or_none = None if self._store is None else save
        job = EpochsJob(name, Budget(share), self._tally, self._send, self._lease_time, save=save_or_none)
        self.jobs[name] = job
        return job

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
                self._new_job((pipeline, group)).restore(record)
                self._records[pipeline, group] = record
        except (ValueError, TypeError, LookupError, WireError) as error:
            raise LedgerError(
                f"the ledger's record is not one of dfserve's: {type(error).__name__}: {error}"
            ) from error
        self._stored = number
