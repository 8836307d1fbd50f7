"""Owns the tests of `dfserve bench` with real processes: what it reports and how it fails; never how fast it is."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from dfserve import FactoryError, PipelineError, Starved, WorkerLost
from dfserve.cli import cli
from dfserve.cli.bench_processes import Processes, Tallies, busy_seconds, cpu_seconds
from dfserve.cli.bench_rounds import Question, Result, as_json, measure
from dfserve.cli.bench_stages import Sample, Settings, measure_loops, measure_transport, structure_of
from dfserve.cli.bench_view import text
from dfserve.dataflow.adapt import as_dataflow

# Python's, against forking beside threads: the test runner may have one, `dfserve bench` has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

Start = Callable[..., Any]
QUICK = Settings(seconds=0.2, warmup=0.05, timeout=30.0)
FAST = ("--seconds", "200ms", "--warmup", "50ms", "--rounds", "1", "--workers", "2", "--timeout", "30s")

PIPELINES = """
import os, signal, time
import numpy as np

def images(count=3, size=8):
    return [[np.zeros((size, size, 3), np.uint8), number] for number in range(count)]

def fails():
    yield [1]
    raise ValueError("the disk is on fire")

def once():
    yield [1]

def empty():
    return []

def unsendable():
    return [[object()]]

class Stuck:
    def __iter__(self):
        yield [1]
        time.sleep(3600)

class Killed:
    def __iter__(self):
        yield [1]
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def bench(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start ``dfserve bench ARGUMENTS`` in a user's folder."""
    (tmp_path / "mine.py").write_text(PIPELINES)
    monkeypatch.setenv("DFSERVE_TEST_FOLDER", str(tmp_path))
    code = "import os; os.chdir(os.environ['DFSERVE_TEST_FOLDER']); from dfserve.cli import main; main()"
    return lambda *arguments, **environment: start("-c", code, "bench", *arguments, **environment)


def words(program: Any) -> str:
    """Return what it said, without its line ends."""
    return " ".join(program.output.split())


def ignore(_what: str, _rate: float) -> None:
    """Show nothing."""


# ---------------------------------------------------------------------- what it reports


def test_a_finite_pipeline_is_repeated_and_reported_for_people(bench: Start) -> None:
    program = bench("mine:images", *FAST, "--need", "100", "--link", "1Gbit", "--arg", "size=16")
    assert program.wait() == 0, program.output
    said = words(program)
    assert "mine:images: [uint8 (16, 16, 3), int], " in said
    for part in (
        "bare, 1 process ", "with workers, 2 processes ", "with transport, 2 processes ",
        "2 loops side by side make ", "Transport costs ", "What limits here: ", "Batching in the pipeline would ",
        "For 100 datapoints/s, with 10% to spare: ", " on the trainer's link, which fits into 1.0 Gbit/s.",
    ):  # fmt: skip
        assert part in said, said
    assert "\x1b" not in program.output, "no progress line where there is no terminal"


def test_json_is_one_object_with_every_round(bench: Start) -> None:
    program = bench("mine:images", *FAST, "--rounds", "2", "--json", "--need", "2k")
    assert program.wait() == 0, program.output
    (found,) = program.lines
    assert program.output.count("\n") == 1
    for stage, processes in (("bare", 1), ("with_workers", 2), ("with_transport", 2)):
        figures = found[stage]
        assert figures["processes"] == processes
        assert len(figures["rounds"]) == 2
        assert 0 < figures["low"] <= figures["items_per_s"] <= figures["high"]
    assert found["datapoint"]["structure"] == "[uint8 (8, 8, 3), int]"
    assert 192 < found["datapoint"]["bytes"] < 400
    assert found["settings"]["workers"] == 2
    assert found["need"]["rate"] == 2000
    assert found["need"]["workers"] >= 1
    assert {"limit", "because", "remedy", "batching", "machine_rate"} <= set(found["advice"])


def test_everything_can_come_from_variables(bench: Start) -> None:
    program = bench(
        DFSERVE_BENCH_PIPELINE="mine:images", DFSERVE_BENCH_ARG="count=1 size=2", DFSERVE_BENCH_WORKERS="1",
        DFSERVE_BENCH_SECONDS="100ms", DFSERVE_BENCH_WARMUP="0", DFSERVE_BENCH_ROUNDS="1", DFSERVE_BENCH_JSON="1",
    )  # fmt: skip
    assert program.wait() == 0, program.output
    (found,) = program.lines
    assert found["datapoint"]["structure"] == "[uint8 (2, 2, 3), int]"
    assert found["need"] is None


# ---------------------------------------------------------------------- how it fails


@pytest.mark.parametrize("factory", ["fails", "unsendable"])
def test_a_pipeline_that_raises_is_status_3_with_its_traceback(bench: Start, factory: str) -> None:
    program = bench(f"mine:{factory}", *FAST)
    assert program.wait() == 3
    assert {"fails": "ValueError: the disk is on fire", "unsendable": "cannot travel"}[factory] in program.output
    assert "Traceback" in program.output


def test_a_pipeline_that_yields_nothing_is_status_2_with_a_remedy(bench: Start) -> None:
    program = bench("mine:empty", *FAST)
    assert program.wait() == 2
    assert "yielded no datapoint in its first pass; is its folder empty" in program.output
    assert "Traceback" not in program.output


def test_a_pipeline_that_can_be_iterated_once_is_told_so(bench: Start) -> None:
    program = bench("mine:once", *FAST)
    assert program.wait() == 3
    assert "it runs once and is spent" in program.output


def test_a_pipeline_that_stops_yielding_is_status_6(bench: Start) -> None:
    program = bench("mine:Stuck", *FAST, "--timeout", "500ms")
    assert program.wait() == 6
    assert "yielded no datapoint for 0.5 s" in program.output
    assert "raise --timeout" in program.output


def test_a_pipeline_that_is_killed_is_named_with_the_signal(bench: Start) -> None:
    program = bench("mine:Killed", *FAST)
    assert program.wait() == 3
    assert "loop 0 ended: killed by SIGKILL" in program.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mine:images", "--workers", "0"],
        ["mine:images", "--need", "0"],
        ["mine:images", "--need", "lots"],
        ["mine:images", "--need", "5", "--link", "10"],
        ["mine:images", "--link", "10Gbit"],
        ["mine:images", "--seconds", "0"],
        ["mine:images", "--rounds", "0"],
        ["no_such_module_at_all:images"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments: list[str], dfserve: Start) -> None:
    if arguments == ["no_such_module_at_all:images"]:
        assert dfserve("bench", *arguments).wait() == 2
    else:
        assert CliRunner().invoke(cli, ["bench", *arguments]).exit_code == 2


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_all_its_processes(
    bench: Start, until: Callable[..., Any], signum: int, status: int
) -> None:
    program = bench("mine:images", *FAST, "--seconds", "1h")
    until(lambda: program.children(), "a loop")
    program.signal(signum)
    assert program.wait() == status
    assert not program.output.strip()


def test_nothing_outlives_it_when_it_is_killed(bench: Start, until: Callable[..., Any]) -> None:
    program = bench("mine:images", "--workers", "2", "--seconds", "100ms", "--warmup", "0", "--rounds", "1000000")
    # Below it: the consumer and its broker, the supervisor and its workers.
    family = until(lambda: found if len(found := program.children()) >= 5 else None, "the workers")
    program.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


# ---------------------------------------------------------------------- the measuring


def test_loops_that_count_to_a_beat_are_measured_at_that_beat() -> None:
    class Beat:
        def __iter__(self) -> Any:
            while True:
                time.sleep(0.05)
                yield [1]

    sample = measure_loops(as_dataflow(Beat()), 2, QUICK, ignore)
    assert 0 < sample.rate <= 2 / 0.05 + 1e-3
    assert sample.structure == "[int]"


def test_a_pipeline_slower_than_the_window_is_still_measured() -> None:
    class Slow:
        def __iter__(self) -> Any:
            while True:
                time.sleep(0.5)
                yield [1]

    assert 0 < measure_loops(as_dataflow(Slow()), 1, QUICK, ignore).rate <= 2


def test_loops_draw_different_random_numbers(tmp_path: Path) -> None:
    class Draws:
        def __iter__(self) -> Any:
            (tmp_path / str(os.getpid())).write_text(str(np.random.random()))
            while True:
                time.sleep(0.001)
                yield [1]

    measure_loops(as_dataflow(Draws()), 2, QUICK, ignore)
    drawn = [file.read_text() for file in tmp_path.iterdir()]
    assert len(drawn) == len(set(drawn)) == 2


def test_real_workers_send_what_one_consumer_counts() -> None:
    seen: list[str] = []
    flow = as_dataflow([[np.zeros(1000, np.uint8), 1]] * 10)
    sample = measure_transport(flow, 2, 1000, QUICK, lambda what, _rate: seen.append(what))
    assert sample.rate > 0
    assert 0 <= sample.waited <= 1
    assert "waiting for the first datapoint" in seen


def test_datapoints_larger_than_the_least_queue_arrive() -> None:
    flow = as_dataflow([[np.zeros(70 << 20, np.uint8)]])
    assert measure_transport(flow, 1, 70 << 20, QUICK, ignore).rate > 0


def test_a_pipeline_that_raises_in_a_worker_is_an_error_with_its_traceback(capfd: Any) -> None:
    def fail() -> Any:
        yield [1]
        raise ValueError("the disk is on fire")

    with pytest.raises(PipelineError, match="the disk is on fire"):
        measure_transport(as_dataflow(fail()), 1, 100, QUICK, ignore)


def test_a_loop_whose_second_pass_is_empty_is_an_error_that_says_what_to_return() -> None:
    class Spent:
        def __init__(self) -> None:
            self.left = [[1]]

        def __iter__(self) -> Any:
            while self.left:
                yield self.left.pop()

    with pytest.raises(FactoryError, match="pass 2 of the pipeline yielded nothing"):
        measure_loops(as_dataflow(Spent()), 1, QUICK, ignore)


def test_a_structure_is_written_for_people() -> None:
    assert structure_of([np.zeros((2, 3), np.float32), 1, "a"]) == "[float32 (2, 3), int, str]"
    assert structure_of({"image": np.zeros(4, np.uint8), "label": np.int64(1)}) == "{image: uint8 (4,), label: int64}"
    assert structure_of([1] * 9) == "[int, int, int, int, int, int, ...]"


# ---------------------------------------------------------------------- processes


def test_what_a_child_raises_is_raised_here() -> None:
    def fail(_report: Any) -> None:
        raise Starved("nothing came")

    with Processes() as processes:
        processes.fork("it", fail)
        with pytest.raises(Starved, match="nothing came"):
            processes.next_report(30)


@pytest.mark.parametrize(
    ("end", "how"),
    [(lambda: os._exit(7), "exit status 7"), (lambda: os.kill(os.getpid(), 40), "killed by signal 40")],
)
def test_a_child_that_ends_is_named(end: Callable[[], object], how: str) -> None:
    with Processes() as processes:
        processes.fork("it", lambda _report: end())
        with pytest.raises(WorkerLost, match=f"it ended: {how}"):
            processes.next_report(30)


def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.cli.bench_processes.END", 0.2)

    def stubborn(report: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report({"ready": True})
        time.sleep(3600)

    with Processes() as processes:
        child = processes.fork("it", stubborn)
        assert processes.next_report(30) == {"ready": True}
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_tallies_are_seen_on_both_sides_of_a_fork() -> None:
    tallies = Tallies(2)

    def count(report: Any) -> None:
        tallies.numbers[5] = 3.0
        report({})
        time.sleep(3600)

    with Processes() as processes:
        processes.fork("it", count)
        processes.next_report(30)
        assert [tally.count for tally in tallies.read()] == [0.0, 3.0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_cpu_time_is_told_for_a_process_and_for_those_below_it() -> None:
    def burn(report: Any) -> None:
        while time.process_time() < 0.3:
            pass
        report({})
        time.sleep(3600)

    ((own_before, below_before),) = cpu_seconds([os.getpid()])
    busy = busy_seconds()
    with Processes() as processes:
        processes.fork("it", burn)
        processes.next_report(60)
        ((own, below),) = cpu_seconds([os.getpid()])
    assert below - below_before >= 0.2
    assert own >= own_before
    assert busy_seconds() > busy


def test_the_cpu_time_of_a_process_that_is_gone_is_unknown() -> None:
    with Processes() as processes:
        child = processes.fork("it", lambda _report: None)
    assert all(math.isnan(seconds) for seconds in cpu_seconds([child.pid])[0])


# ---------------------------------------------------------------------- rounds, with measuring left out


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run rounds whose figures are given, and return the result."""

    def run(bare: list[float], sent: list[float], workers: int = 1, **figures: float) -> Result:
        loops = iter([rate for rate in bare for _ in range(1 if workers == 1 else 2)])
        transports = iter(sent)
        monkeypatch.setattr(
            "dfserve.cli.bench_rounds.measure_loops",
            lambda _flow, _count, _settings, _show: Sample(next(loops), 1.0, nbytes=100, structure="[int]"),
        )
        monkeypatch.setattr(
            "dfserve.cli.bench_rounds.measure_transport",
            lambda _flow, _workers, _nbytes, _settings, _show: Sample(next(transports), 1.0, **figures),
        )
        return partial(measure, "mine:images", as_dataflow([[1]]))(
            cores=2, workers=workers, rounds=len(bare), settings=QUICK, show=ignore, question=Question()
        )

    return run


def test_medians_and_spread_are_over_the_rounds(rounds: Callable[..., Result]) -> None:
    result = rounds([100, 900, 300], [50, 70, 60], waited=0.9)
    assert (result.measured.bare, result.measured.together, result.measured.transported) == (300, 300, 60)
    found = as_json(result)
    assert (found["bare"]["low"], found["bare"]["high"]) == (100, 900)
    assert found["with_transport"]["rounds"] == [50, 70, 60]


def test_what_the_system_does_not_tell_is_null_and_a_question_mark(rounds: Callable[..., Result]) -> None:
    result = rounds([100.0], [90.0], broker_cpu=math.nan, consumer_cpu=math.nan, waited=0.999)
    found = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert found["with_transport"]["broker_cpus"] is None
    assert "the broker kept ? CPUs busy" in " ".join(text(result).split())


def test_busy_neighbours_are_told_of(rounds: Callable[..., Result]) -> None:
    quiet, crowded = rounds([100.0], [90.0], waited=0.9), rounds([100.0], [90.0], waited=0.9, others=1.5)
    assert "Other processes" not in text(quiet)
    assert "Other processes kept 1.5 CPUs busy" in text(crowded)


def test_a_process_that_is_told_to_end_while_memory_is_given_back_ends_a_moment_later() -> None:
    def run(_: object) -> None:
        class Thing:
            """What has a finaliser."""

        thing = Thing()
        weakref.finalize(thing, os.kill, os.getpid(), signal.SIGTERM)  # in which Python ignores exceptions
        del thing
        time.sleep(60)

    with Processes() as processes:
        processes.fork("it", run)
        with pytest.raises(WorkerLost, match="exit status 0"):
            assert processes.next_report(30) is not None, "it sleeps on"
