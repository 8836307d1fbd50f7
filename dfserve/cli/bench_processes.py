"""Owns the processes of `dfserve bench`: forked, watched, ended whatever happens, and the memory they count in."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from dfserve import errors
from dfserve.cli.signals import insist
from dfserve.deathbed import die_with
from dfserve.errors import DfserveError, WorkerLost
from dfserve.signal_names import signal_name

END = 5.0  # seconds for a process to end after SIGTERM before it is killed
TURN = 0.02  # seconds between two looks at whether it has
# Wait until a child is known to its parent, and has handlers of its own: in what Python does after a fork an exception
# would be lost.
HELD = {signal.SIGTERM, signal.SIGINT}
FIELDS = 5  # of a slot: datapoints, when the last one came, seconds waited; datapoints weighed, their bytes
# What a child may raise here under its own name; anything else is a DfserveError with that text.
NAMED = ("AddressInUse", "BrokerLost", "ConfigError", "FactoryError", "PipelineError", "Starved", "WorkerLost")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Tally:
    """One process's counts at one moment; times are of the monotonic clock, which all processes share."""

    count: float = 0
    when: float = 0
    waited: float = 0
    weighed: float = 0
    nbytes: float = 0


class Tallies:
    """What processes count, in memory that both sides of a fork see. Each slot has one writer."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._map = mmap.mmap(-1, 8 * FIELDS * slots)
        self.numbers = memoryview(self._map).cast("d")

    def read(self) -> list[Tally]:
        """Return all counts."""
        return [Tally(*self.numbers[at : at + FIELDS]) for at in range(0, FIELDS * self._slots, FIELDS)]


@dataclass(frozen=True)
class Child:
    """A forked process."""

    name: str
    pid: int
    reports: connection.Connection
    stop: signal.Signals


class Processes:
    """Forked processes. A context manager: none of them outlives it. Its own process must have no threads."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._parent = os.getpid()

    def fork(self, name: str, run: Callable[[Report], None], stop: signal.Signals = signal.SIGTERM) -> Child:
        """Run a function in a new process; it is given what sends a JSON object to `next_report`.

        Args:
            stop: how to end it.
        """
        reports, sink = connection.Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(run, sink, mask)
            sink.close()
            child = Child(name, pid, reports, stop)
            self._children.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return child

    def _become_child(self, run: Callable[[Report], None], sink: connection.Connection, mask: set[Any]) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGTERM, _exit)
            insist()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
            die_with(self._parent, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            run(lambda report: sink.send_bytes(json.dumps(report).encode()))
            status = 0
        except SystemExit:
            status = 0
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent is told, and this process ends
            with contextlib.suppress(OSError):
                sink.send_bytes(json.dumps({"error": type(error).__name__, "text": str(error)}).encode())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def next_report(self, seconds: float) -> dict[str, Any] | None:
        """Return what a process says within so many seconds, if one does.

        Raises:
            DfserveError: what a process raised.
            WorkerLost: one has ended.
        """
        ready = connection.wait([child.reports for child in self._children], max(0.0, seconds))
        for child in self._children:
            if child.reports not in ready:
                continue
            try:
                report: dict[str, Any] = json.loads(child.reports.recv_bytes())
            except EOFError:
                raise WorkerLost(f"{child.name} ended: {_how(child.pid)}") from None
            if "error" in report:
                raise _error(report["error"], report["text"])
            return report
        return None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_exc: object) -> None:
        """End all, the last started first."""
        for child in reversed(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, child.stop)
            _reap(child.pid)
            child.reports.close()


def _exit(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _error(name: str, text: str) -> DfserveError:
    kind: type[DfserveError] = getattr(errors, name) if name in NAMED else DfserveError
    return kind(text if name in NAMED else f"{name}: {text}")


def _how(pid: int) -> str:
    """Say how a process that has closed its pipe ended."""
    deadline = time.monotonic() + END
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # it is reaped with the others
            if found is None:
                time.sleep(TURN)
                continue
            if found.si_code == os.CLD_EXITED:
                return f"exit status {found.si_status}"
            name = signal_name(found.si_status)
            return f"killed by {name}" + (
                "; is the machine short of memory? Each worker is a process with a copy of the pipeline"
                if name == "SIGKILL"
                else ""
            )
    return "nobody knows how"


def _reap(pid: int) -> None:
    deadline = time.monotonic() + END
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(TURN)


def cpu_seconds(pids: Sequence[int]) -> list[tuple[float, float]]:
    """Return the CPU time so far of each process, and of all processes below it; NaN where there is no /proc.

    Of those below it, what has ended counts too, once its parent has reaped it.
    """
    names = [entry.name for entry in Path("/proc").iterdir()] if Path("/proc").is_dir() else []
    found = {int(name): stat for name in names if name.isdigit() and (stat := _stat(name)) is not None}
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in found.items():
        children.setdefault(parent, []).append(pid)
    return [_own_and_below(pid, found, children) for pid in pids]


def _own_and_below(
    pid: int, found: dict[int, tuple[int, float, float]], children: dict[int, list[int]]
) -> tuple[float, float]:
    if pid not in found:
        return math.nan, math.nan
    _, own, below = found[pid]
    todo = list(children.get(pid, ()))
    while todo:
        child = todo.pop()
        below += found[child][1] + found[child][2]
        todo += children.get(child, ())
    return own, below


def busy_seconds() -> float:
    """Return the time so far in which the CPUs that this process may use were busy, whoever with; NaN without /proc."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()
    try:
        rows = [row.split() for row in Path("/proc/stat").read_text().splitlines() if row.startswith("cpu")]
    except OSError:
        return math.nan
    # user, nice, system, (idle, iowait,) irq, softirq, steal: see proc(5)
    busy = sum(int(row[place]) for row in rows if row[0] in mine for place in (1, 2, 3, 6, 7, 8))
    return busy / os.sysconf("SC_CLK_TCK")


def _stat(pid: str) -> tuple[int, float, float] | None:
    """Return a process's parent, its own CPU seconds, and those of its children that it has reaped."""
    try:
        fields = Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()  # see proc(5): a name may have any
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / tick, (int(fields[13]) + int(fields[14])) / tick
