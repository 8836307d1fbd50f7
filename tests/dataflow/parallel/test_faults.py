"""What can go wrong in parallel: for every class an error or a clean end within seconds, and no process left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pipelines as p
import psutil
import pytest
from faulty import KINDS, made

from dfserve.dataflow import MapData
from dfserve.dataflow.failures import key_of
from dfserve.errors import PipelineError, WorkerLost

PATIENCE = 60  # seconds: a hang becomes a failure
PROCESS_KINDS = [kind for kind in KINDS if "Process" in kind]
MAPS = [kind for kind in KINDS if "Map" in kind]
FAULTY = str(Path(__file__).with_name("faulty.py"))
HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])])}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_process_kind = pytest.mark.parametrize("kind", PROCESS_KINDS)


def assert_fails(ds: Any, match: str) -> Exception:
    """Iterate until it fails; a stream without end is cut off far behind the failure."""
    with pytest.raises(Exception, match=match) as caught:
        list(islice(ds, 2000))
    return caught.value


@every_kind
def test_a_raising_function_is_an_error_with_key_and_traceback_every_time(kind: str) -> None:
    ds = made(kind, p.numbers(), p.failing_at_40)
    for _ in range(2):
        error = assert_fails(ds, "forty is not for us")
        assert isinstance(error, PipelineError) or type(error) is ValueError
        assert key_of(error) == "40" or getattr(error, "key", "") == "40"
        trace = getattr(error, "remote_traceback", "") or str(error.__traceback__.tb_next)  # type: ignore[union-attr]
        assert trace


@every_kind
def test_a_raising_source_is_an_error(kind: str) -> None:
    error = assert_fails(made(kind, MapData(p.numbers(), p.failing_at_40), p.plain), "forty is not for us")
    assert isinstance(error, PipelineError) or type(error) is ValueError


@every_process_kind
def test_a_function_that_exits_is_an_error(kind: str) -> None:
    with pytest.raises((PipelineError, WorkerLost)):
        list(islice(made(kind, p.numbers(), p.leaving_at_40), 2000))


@every_process_kind
def test_a_worker_killed_in_its_work_is_an_error_that_names_worker_and_signal(kind: str) -> None:
    with pytest.raises(WorkerLost, match=r"worker \d of \d \(pid \d+\) was killed by SIGKILL"):
        list(islice(made(kind, p.numbers(), p.dying_at_40), 2000))


def ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # a forkserver, which started it, has waited for it
        return True


@every_process_kind
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_killed_while_it_waits_is_an_error(kind: str, signum: int, until: Callable[..., Any]) -> None:
    others = set(multiprocessing.active_children())  # of operators that the report of an earlier test still refers to
    # A worker that is just starting still has its parent's handler, and another test may have left one.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        iterator = iter(made(kind, p.numbers(5000), p.plain))
        next(iterator)
    finally:
        signal.signal(signal.SIGTERM, before)
    workers = set(multiprocessing.active_children()) - others
    victim = psutil.Process(workers.copy().pop().pid)
    os.kill(victim.pid, signum)
    until(lambda: ended(victim), "its end")  # before the others have made all there is
    with pytest.raises(WorkerLost, match=signal.Signals(signum).name):
        list(islice(iterator, 100_000))
    assert not any(worker.is_alive() for worker in workers)


def left(pids: list[int]) -> list[psutil.Process]:
    """Wait for processes to end; return those that have not within the time allowed."""
    family = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(pid))
    return list(psutil.wait_procs(family, timeout=PATIENCE)[1])


@every_kind
@pytest.mark.parametrize("scenario", ["running", "hanging"])
def test_workers_die_with_a_parent_that_is_killed(kind: str, scenario: str, start: Callable[..., Any]) -> None:
    program = start(FAULTY, kind, scenario, **HERE)
    program.wait_until_said("running")
    workers = [child.pid for child in program.children()]
    assert bool(workers) == (kind in PROCESS_KINDS)
    program.kill()
    assert left(workers) == []


@every_process_kind
def test_even_workers_that_hold_the_interpreters_lock_die_with_their_parent(
    kind: str, start: Callable[..., Any]
) -> None:
    program = start(FAULTY, kind, "deaf", **HERE)
    program.wait_until_said("running")
    workers = [child.pid for child in program.children()]
    program.kill()
    assert left(workers) == []


@every_kind
def test_an_abandoned_operator_ends_its_workers_at_once(kind: str, start: Callable[..., Any]) -> None:
    program = start(FAULTY, kind, "abandoned", **HERE)
    assert program.wait() == 0, program.output
    before, after = program.lines
    assert bool(before[1:]) == (kind in PROCESS_KINDS)
    assert after == ["collected"]


@every_kind
def test_a_program_that_ends_in_the_middle_ends_cleanly(kind: str, start: Callable[..., Any]) -> None:
    program = start(FAULTY, kind, "leaving", **HERE)
    assert program.wait() == 0, program.output
    assert "Traceback" not in program.output
    assert left(program.lines[0][1:]) == []


@every_kind
def test_ctrl_c_ends_the_program_and_its_workers(kind: str, start: Callable[..., Any]) -> None:
    program = start(FAULTY, kind, "running", **HERE)
    program.wait_until_said("running")
    workers = program.children()
    for process in [*workers, psutil.Process(program.pid)]:  # as a terminal does: to all of them
        process.send_signal(signal.SIGINT)
    assert program.wait() == -signal.SIGINT
    assert program.output.count("Traceback") == 1, "only the program itself says that it was interrupted"
    assert left([worker.pid for worker in workers]) == []
