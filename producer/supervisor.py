"""Owns the producer daemon's processes: it forks workers, restarts those that die, and ends them all within the grace.

It has no thread, so that forking is safe at any time. A single pipeline is built once, before the first fork: a million
files on a network share are listed once per machine. Several are built in the workers, when they are first wanted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType

from dfserve.client import Connection
from dfserve.dataflow.base import DataFlow
from dfserve.http import Server
from dfserve.producer.board import Board
from dfserve.producer.send import host_name, introduce
from dfserve.producer.turns import Build
from dfserve.producer.uplink import Uplink
from dfserve.producer.worker import DONE, KILLED, RAISED, Task, work
from dfserve.signal_names import signal_name
from dfserve.wire.messages import Obituary, ProducerHello

log = logging.getLogger("dfserve.producer")

BACKOFF = 1.0  # seconds before the first restart; doubles up to
BACKOFF_MAX = 30.0  # seconds
HEALTHY = 60.0  # seconds of life after which a worker's deaths are forgotten
GIVE_UP = 8  # deaths in a row, none after a healthy life: a minute and a half of trying
REPORT = 30.0  # seconds between lines that say how fast it goes
TURN = 0.5  # seconds between looks at what is due
OBITUARY_MS = 2000  # milliseconds to reach the broker with the news of a death
MARGIN = 2.0  # seconds beyond the grace that workers get to exit by themselves


@dataclass(frozen=True)
class Plan:
    """What a producer daemon is to do.

    Attributes:
        df: the pipeline, built and not reset; each worker runs its own copy. Or several by name, each as what
            builds it, in every worker that it is first wanted of; called again, it returns the same.
        uplink: each worker's way to the broker.
        pipeline: the name of a single one.
        passes: passes of each worker; None repeats for ever, and restarts workers that die.
        grace: seconds for workers to hand over what they hold when told to stop.
    """

    df: DataFlow | Mapping[str, Build]
    uplink: Uplink
    workers: int = 1
    passes: int | None = None
    pipeline: str = "default"
    grace: float = 10.0

    @property
    def pipelines(self) -> dict[str, Build]:
        """What builds each pipeline, by name."""
        df = self.df
        return dict(df) if isinstance(df, Mapping) else {self.pipeline: lambda: df}


@dataclass
class Slot:
    """One worker's place: who fills it now, and how often that had to be started again."""

    number: int
    name: str
    pid: int = 0  # 0: empty
    started: float = 0.0
    restart_at: float | None = None
    restarts: int = 0
    failures: int = 0  # in a row
    status: int = DONE
    identities: list[ProducerHello] = field(default_factory=list)  # one for each pipeline


class Supervisor:
    """Runs workers until their passes are done or it is told to stop.

    Args:
        plan: what to do.
        board: the counters, shared with the workers.
    """

    def __init__(self, plan: Plan, board: Board) -> None:
        self.plan = plan
        self.board = board
        self._server: Server | None = None
        self._pid = os.getpid()
        self.slots = [Slot(number, f"{host_name()}/{number}") for number in range(plan.workers)]
        self._stop_at: float | None = None
        self._signals: list[int] = []
        self._reported = (time.monotonic(), 0.0)

    @property
    def running(self) -> list[Slot]:
        """The slots that have a process."""
        return [slot for slot in self.slots if slot.pid]

    def run(self, server: Server | None = None) -> int:
        """Run to the end, handling a server's requests meanwhile. Returns the worst of the workers' exit statuses."""
        self._server = server
        # Not select(), which knows no file beyond the 1,024th: a factory may have opened that many.
        selector = selectors.PollSelector() if server is None else server.selector
        with self._signal_pipe() as wake:
            selector.register(wake, selectors.EVENT_READ)
            for slot in self.slots:
                self._fork(slot)
            while self.running or any(slot.restart_at is not None for slot in self.slots):
                self._wait(wake, selector)
                self._obey()  # first: a signal to the whole group ends workers, too, and they end well
                self._reap()
                self._restart()
                self._report()
        return max(slot.status for slot in self.slots)

    # ------------------------------------------------------------------ processes

    def _fork(self, slot: Slot) -> None:
        plan = self.plan
        builds = plan.pipelines
        # One that has died waits to be asked. Else what kills it ahead of any trainer would do so until it is given up,
        # and a trainer that comes to skip that item, or to find it, would have no workers.
        eager = len(builds) == 1 and not slot.failures
        slot.identities = [
            introduce(str(slot.number), name, plan.passes, slot.restarts, eager=eager) for name in builds
        ]
        slot.started, slot.restart_at = time.monotonic(), None
        self.board.note(slot.number, 0, 0)
        pipelines = list(zip(slot.identities, builds.values(), strict=True))
        task = Task(pipelines, plan.uplink, slot.number, plan.passes, plan.grace)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the worker listens: it must not be lost
        pid = os.fork()
        if pid == 0:
            self._become_worker(task)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        slot.pid = pid
        log.info("worker %s started (pid %d)", slot.name, pid)

    def _become_worker(self, task: Task) -> None:
        status = RAISED
        try:
            if self._server is not None:
                self._server.close()
            status = work(task, self.board, self._pid)
        except BaseException:  # whatever it is, this process must not go on as a second supervisor
            log.exception("worker %s failed", task.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        for slot in self.running:
            pid, raw = os.waitpid(slot.pid, os.WNOHANG)
            if pid:
                slot.pid = 0
                self._ended(slot, os.waitstatus_to_exitcode(raw))

    def _ended(self, slot: Slot, code: int) -> None:
        stopping = self._stop_at is not None
        if (code == DONE and self._has_done(slot)) or (stopping and code >= 0):
            slot.status = max(slot.status, code)
            return
        reason = f"killed by {signal_name(-code)}" if code < 0 else f"exit status {code}"
        slot.status = max(slot.status, KILLED if code < 0 else code or RAISED)
        age = time.monotonic() - slot.started
        log.error("worker %s ended after %.0f s: %s", slot.name, age, reason)
        if not stopping:  # else the cut connection tells the broker soon enough, and stopping must not wait
            self._announce(slot, reason)
        slot.failures = 1 if age > HEALTHY else slot.failures + 1
        if self.plan.passes is not None or stopping:
            return
        if slot.failures >= GIVE_UP:
            log.error("worker %s has died %d times in a row; giving it up", slot.name, slot.failures)
            return
        pause = min(BACKOFF * 2 ** (slot.failures - 1), BACKOFF_MAX)
        slot.restart_at = time.monotonic() + pause
        log.info("worker %s starts again in %.0f s", slot.name, pause)

    def _has_done(self, slot: Slot) -> bool:
        """Whether a worker may end well that nobody told to stop; else an item's code has called ``os._exit(0)``."""
        return self.plan.passes is not None and self.board.place(slot.number) is None

    def _restart(self) -> None:
        now = time.monotonic()
        for slot in self.slots:
            if slot.restart_at is not None and now >= slot.restart_at:
                slot.restarts += 1
                slot.status = DONE
                counters = self.board.read(slot.number)
                self.board.write(slot.number, replace(counters, restarts=slot.restarts))
                self._fork(slot)

    def _announce(self, slot: Slot, reason: str) -> None:
        """Tell the broker of a death that we saw, so that it need not wait for silence to tell."""
        place = self.board.place(slot.number)
        with Connection(self.plan.uplink.address, keys=self.plan.uplink.keys) as connection:
            if not connection.socket.poll(OBITUARY_MS):  # its question who we are: the connection is there
                return
            for number, identity in enumerate(slot.identities):
                at = list(place[1:]) if place is not None and place[0] == number else []
                connection.send(Obituary(identity.session, reason, at, identity.pipeline))

    # ------------------------------------------------------------------ signals and time

    @contextlib.contextmanager
    def _signal_pipe(self) -> Iterator[int]:
        """Make signals end the wait, and remember SIGTERM and SIGINT."""

        def remember(signum: int, _frame: FrameType | None) -> None:
            self._signals.append(signum)

        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGTERM: remember,
            signal.SIGINT: remember,
            signal.SIGCHLD: lambda *_: None,
        }
        before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield read
        finally:
            signal.set_wakeup_fd(old)
            for signum, handler in before.items():
                signal.signal(signum, handler)
            os.close(read)
            os.close(write)

    def _wait(self, wake: int, selector: selectors.BaseSelector) -> None:
        if self._server is None:
            selector.select(TURN)
        else:
            self._server.turn(TURN)
        with contextlib.suppress(BlockingIOError):  # no signal came
            os.read(wake, 4096)

    def _obey(self) -> None:
        """The first signal drains, the second forces; so does the end of the grace."""
        now = time.monotonic()
        if self._signals and self._stop_at is None:
            self._signals.pop(0)
            self._stop_at = now + self.plan.grace + MARGIN
            log.info("stopping: workers have %.0f s to hand over what they hold", self.plan.grace)
            for slot in self.slots:
                slot.restart_at = None
            self._signal_all(signal.SIGTERM)
        if self._stop_at is not None and (self._signals or now > self._stop_at) and self.running:
            log.warning(
                "killing %d workers: %s", len(self.running), "second signal" if self._signals else "grace is over"
            )
            self._signals.clear()
            self._stop_at = now + TURN
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, signum: signal.Signals) -> None:
        for slot in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(slot.pid, signum)

    def _report(self) -> None:
        now = time.monotonic()
        then, before = self._reported
        if now - then < REPORT:
            return
        total = sum(self.board.read(slot.number).datapoints for slot in self.slots)
        self._reported = (now, total)
        log.info("%d workers, %.0f datapoints/s", len(self.running), (total - before) / (now - then))
