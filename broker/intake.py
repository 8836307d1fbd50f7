"""Owns what the broker knows of workers: their sequence of blocks, their offers and their credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from dfserve.broker.budget import Budget, charge_of
from dfserve.errors import WireError
from dfserve.wire.messages import ProducerHello

MAX_OFFERS = 4096  # blocks that one worker may have offered and not sent; honest ones hold a few dozen


class State(Enum):
    """Where a worker stands."""

    LIVE = "live"
    SUSPECT = "suspect"  # its connection is gone, it may come back
    FINISHED = "finished"  # its last pass ended cleanly
    BROKEN = "broken"  # it raised or died in a finite pass
    GONE = "gone"  # it left, or an endless one was lost


@dataclass(eq=False)
class Worker:
    """One incarnation of a worker.

    ``received``, ``granted`` and ``offered`` are numbers: all blocks up to them were.
    """

    session: bytes
    name: str
    host: str
    pid: int
    passes: int
    received: int
    state: State = State.LIVE
    since: float = 0.0  # the broker's clock, when the state was entered
    reason: str = ""
    raised: bool = False  # in a finite pass, which no reconnect makes whole
    granted: int = 0
    offered: int = 0
    released: int = 0
    blocked: float = 0.0
    grants: deque[int] = field(default_factory=deque)  # charges of what is granted and not received
    resync: bool = False  # a gap was seen: nothing counts until its hello
    asked: bool = False  # for that hello
    credit_due: bool = False  # it should be told of a change

    @property
    def live(self) -> bool:
        """Whether more may come from it."""
        return self.state in (State.LIVE, State.SUSPECT)

    def enter(self, state: State, now: float, reason: str = "") -> None:
        """Change state, noting when and why."""
        self.state, self.since, self.reason = state, now, reason


class Intake:
    """The workers of a job. Grants whole blocks, first come first served, while they fit the budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.workers: dict[bytes, Worker] = {}
        self.requests: deque[tuple[Worker, int, int]] = deque()  # worker, seq, charge

    def hello(self, hello: ProducerHello, now: float) -> tuple[Worker, bool]:
        """Take a worker in, or back after its connection broke; earlier grants are void. Tells whether it is new."""
        worker = self.workers.get(hello.session)
        new = worker is None
        if worker is None:
            received = max(0, hello.base - 1)
            worker = Worker(hello.session, hello.name, hello.host, hello.pid, hello.passes, received)
            self.workers[hello.session] = worker
        worker.received = max(worker.received, hello.base - 1)  # what it no longer holds will never come
        self.void_grants(worker)
        worker.resync = worker.asked = False
        if worker.state is not State.FINISHED and not worker.raised:
            worker.enter(State.LIVE, now)
        return worker, new

    def offer(self, worker: Worker, first: int, sizes: list[int]) -> None:
        """Queue a worker's request for credit. What was offered before is passed over; a gap asks for a new hello.

        Raises:
            WireError: the offer is too long, or a block is larger than the whole budget.
        """
        if first > worker.offered + 1 or worker.resync:
            worker.resync = True
            return
        sizes = sizes[worker.offered + 1 - first :]
        if worker.offered + len(sizes) - worker.received > MAX_OFFERS:
            raise WireError("limits", f"{worker.name} offered more than {MAX_OFFERS} blocks at once")
        for size in sizes:
            charge = charge_of(size)
            if charge > self.budget.total:
                raise WireError("limits", f"block of {size} bytes exceeds the budget of {self.budget.total}")
            worker.offered += 1
            self.requests.append((worker, worker.offered, charge))

    def grant(self) -> int:
        """Grant what fits. Returns the charge that the first request left over needs, or 0."""
        while self.requests:
            worker, seq, charge = self.requests[0]
            if not self.budget.fits(charge):
                return charge
            self.requests.popleft()
            self.budget.take(charge)
            worker.grants.append(charge)
            worker.granted = seq
            worker.credit_due = True
        return 0

    def judge(self, worker: Worker, seq: int, nbytes: int) -> str:
        """Tell what a numbered message is: "new", "duplicate" or "gap". Changes nothing.

        A block beyond the worker's credit counts as a gap: a grant can cross the hello that made it void.

        Raises:
            WireError: its size is not what was offered.
        """
        if seq <= worker.received:
            return "duplicate"
        if worker.resync or seq != worker.received + 1 or seq > worker.granted:
            return "gap"
        if worker.grants[0] != charge_of(nbytes):
            raise WireError("credit", f"{worker.name} offered {worker.grants[0]} bytes and sent {charge_of(nbytes)}")
        return "new"

    def take(self, worker: Worker, seq: int, nbytes: int) -> str:
        """Take a numbered message in, if it is new: its charge is now the block's. Returns and raises as `judge`."""
        verdict = self.judge(worker, seq, nbytes)
        if verdict == "new":
            worker.grants.popleft()
            worker.received = seq
        worker.resync |= verdict == "gap"
        worker.credit_due |= verdict != "gap"
        return verdict

    def void_grants(self, worker: Worker) -> None:
        """Take back what a worker was granted and has not used, and forget what it asked for."""
        self.budget.give_back(sum(worker.grants))
        worker.grants.clear()
        worker.granted = worker.offered = worker.received
        if any(request[0] is worker for request in self.requests):
            self.requests = deque(request for request in self.requests if request[0] is not worker)

    def live(self) -> Iterator[Worker]:
        """Iterate over the workers from which more may come."""
        return (worker for worker in self.workers.values() if worker.live)

    def ended(self, but: set[bytes]) -> tuple[list[Worker], list[Worker]]:
        """Return the workers that finished cleanly and those that broke, without the sessions in ``but``."""
        fresh = [worker for worker in self.workers.values() if worker.session not in but]
        return (
            [worker for worker in fresh if worker.state is State.FINISHED],
            [worker for worker in fresh if worker.state is State.BROKEN],
        )
