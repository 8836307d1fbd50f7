"""A pipeline in worker processes: the same data, from one process or several, however large and however started."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pipelines as p
import psutil
import pytest

from dfserve.dataflow import DataFromList, MapData, fix_rng_seed
from dfserve.dataflow.parallel.process_runner import MultiProcessRunner, MultiProcessRunnerZMQ
from dfserve.errors import ConfigError, DatapointError, DfserveError, PipelineError, WorkerLost


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def run(ds: Any, num_proc: int = 1, hwm: int = 50) -> MultiProcessRunnerZMQ:
    runner = MultiProcessRunnerZMQ(ds, num_proc, hwm)
    runner.reset_state()
    return runner


def test_one_worker_started_in_any_way_yields_the_same_datapoints_in_the_same_order(start_method: str) -> None:
    runner = run(MapData(p.Counted(30, (100, 100)), p.plain))
    for _ in range(2):
        for expected, (number, array) in enumerate(runner):
            assert number == expected
            assert array.shape == (100, 100)
            assert (array == expected).all()
        assert expected == 29


@pytest.mark.parametrize("claimed", [None, 3, 1000])
def test_a_pass_of_one_worker_is_a_pass_of_the_pipeline_whatever_its_length_says(claimed: int | None) -> None:
    runner = run(p.Counted(7, claimed=claimed))
    assert [[dp[0] for dp in runner] for _ in range(3)] == [list(range(7))] * 3


def test_an_empty_pipeline_gives_empty_passes_with_one_worker_and_an_error_with_several() -> None:
    assert [list(run(p.Counted(0))) for _ in range(2)] == [[], []]
    with pytest.raises(PipelineError, match="yields nothing") as caught:
        list(run(p.Counted(0), 2))
    assert caught.value.kind == "DatapointError"
    assert not isinstance(caught.value, DatapointError)


def test_several_workers_each_run_the_pipeline_and_a_pass_is_its_length() -> None:
    runner = run(p.Counted(50, claimed=50), 3)
    passes = [[dp[0] for dp in runner] for _ in range(6)]
    assert [len(numbers) for numbers in passes] == [50] * 6
    # Each worker counts up, again and again: of 300 no number is far more frequent than another.
    assert max(Counter(chain.from_iterable(passes)).values()) <= 12


def test_a_pass_that_was_given_up_is_followed_by_a_whole_one() -> None:
    runner = run(p.Counted(500))
    for stop in (0, 3, 120, 499):
        for number, *_ in runner:
            if number == stop:
                break
    assert [dp[0] for dp in runner] == list(range(500))


def test_with_several_workers_nothing_that_was_prepared_is_lost_by_giving_up_a_pass() -> None:
    runner = run(p.Counted(90), 2)  # without a length: a pass never ends
    seen: list[int] = []
    while len(seen) < 900:
        for number, *_ in runner:
            seen.append(number)
            if len(seen) % 7 == 0:
                break
    # Each of the two workers has yielded its numbers without a gap, so the counts differ by the passes at most.
    counts = Counter(seen)
    assert set(counts) == set(range(90))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_an_older_iterator_ends_with_an_error_when_a_newer_one_was_started() -> None:
    runner = run(p.Counted(100))
    older = iter(runner)
    next(older)
    assert len(list(runner)) == 100
    with pytest.raises(DfserveError, match="superseded"):
        next(older)


@pytest.mark.parametrize("shape", [(), (0, 3), (300,), (64, 224, 224, 3)])
def test_arrays_of_any_size_come_whole_and_may_be_written_to(shape: tuple[int, ...]) -> None:
    for number, array in run(p.Counted(5, shape)):
        assert array.shape == shape
        assert (array == number).all()
        array[...] = 7


def test_datapoints_that_are_kept_are_not_written_over() -> None:
    kept = list(run(p.Counted(3000, (64, 64))))  # 96 MB, far more than what is in flight
    assert all((array == number).all() for number, array in kept)


def test_memory_that_is_not_kept_is_used_again() -> None:
    runner = run(p.Counted(400, (200, 200)), hwm=10)
    for _ in runner:
        pass
    (worker,) = runner._crew.links  # type: ignore[union-attr]
    assert os.fstat(worker._file.fd).st_size <= 16 << 20  # 400 arrays are 128 MB


def test_objects_that_the_codec_refuses_come_as_they_were() -> None:
    found = [(dp[0].value, dp[1]) for dp in run(MapData(p.Counted(20), p.odd))]
    assert found == [(number, "odd") for number in range(20)]


def test_dicts_and_tuples_stay_what_they_are() -> None:
    datapoints: list[Any] = [{"a": 1, "b": "x"}, (1, 2.5), [None, b"z"], {"c": np.arange(3)}]
    found = list(run(DataFromList(datapoints, shuffle=False)))
    assert found[:3] == datapoints[:3]
    assert found[3]["c"].tolist() == [0, 1, 2]


def test_workers_draw_different_numbers_from_every_kind_of_generator() -> None:
    draws: dict[int, list[int]] = {}
    runner = run(p.Draws(), 3)
    while len(draws) < 3:
        for pid, *numbers in runner:
            draws.setdefault(pid, numbers)
    columns = list(zip(*draws.values(), strict=True))
    assert all(len(set(column)) == 3 for column in columns)


def test_one_seed_repeats_what_all_workers_draw(start_method: str) -> None:
    def drawn(seed: int) -> set[tuple[int, ...]]:
        fix_rng_seed(seed)
        runner = run(p.Draws(), 2, 1)
        first: dict[int, tuple[int, ...]] = {}
        while len(first) < 2:
            for pid, *numbers in runner:
                first.setdefault(pid, tuple(numbers))
        return set(first.values())

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_runners_can_be_nested() -> None:
    runner = run(MultiProcessRunner(MultiProcessRunnerZMQ(p.Counted(60), 1), 10, 1))
    assert [dp[0] for dp in runner] == list(range(60))


def test_a_pipeline_that_cannot_be_pickled_is_refused_where_it_must_be_with_the_remedy(start_method: str) -> None:
    ds = MapData(p.Counted(3), lambda dp: dp)
    if start_method == "fork":
        assert len(list(run(ds))) == 3
        return
    with pytest.raises(ConfigError, match="Use functions of a module in place of lambdas"):
        run(ds)


def test_a_failing_pipeline_is_an_error_with_key_worker_and_remote_traceback_and_the_next_pass_works_alike() -> None:
    runner = run(p.failing_source())
    for _ in range(2):
        with pytest.raises(PipelineError, match=r"ValueError at 40 in .*worker 0 of 1.*forty is not for us") as caught:
            list(runner)
        assert (caught.value.kind, caught.value.key) == ("ValueError", "40")
        assert "in failing_at_40" in caught.value.remote_traceback


def test_everything_before_the_failure_is_yielded() -> None:
    found = []
    with pytest.raises(PipelineError):
        found.extend(dp[0] for dp in run(p.failing_source()))
    assert found == list(range(40))


def test_a_pipeline_that_fails_when_reset_says_so_every_time() -> None:
    class Broken(p.Counted):
        def reset_state(self) -> None:
            raise OSError("no disk")

    runner = run(Broken(3), 2)
    for _ in range(2):
        with pytest.raises((PipelineError, WorkerLost), match=r"no disk|after the error that it reported"):
            list(runner)


def test_after_a_lost_worker_a_new_pass_starts_new_ones() -> None:
    runner = run(p.Counted(5000))
    lost = iter(runner)
    next(lost)
    psutil.Process(runner._crew.links[0].process.pid).kill()  # type: ignore[union-attr]
    with pytest.raises(WorkerLost, match=r"worker 0 of 1 \(pid \d+\) was killed by SIGKILL.*out-of-memory"):
        list(lost)
    assert [dp[0] for dp in runner] == list(range(5000))


def test_it_must_be_reset_and_in_the_process_that_iterates() -> None:
    runner = MultiProcessRunnerZMQ(p.Counted(3))
    with pytest.raises(DfserveError, match="call reset_state"):
        list(runner)
    runner.reset_state()
    copy = pickle.loads(pickle.dumps(runner))
    with pytest.raises(DfserveError, match="call reset_state"):
        list(copy)
    copy.reset_state()
    assert len(list(copy)) == len(list(runner)) == 3


def test_a_forked_child_has_no_use_of_its_parents_workers_and_does_them_no_harm() -> None:
    runner = run(p.Counted(2000, (64, 64)))
    running = iter(runner)
    held = [next(running) for _ in range(20)]
    if not (pid := os.fork()):
        status = 1
        try:
            with pytest.raises(DfserveError, match="call reset_state"):
                list(runner)
            held.clear()
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert [dp[0] for dp in running] == list(range(20, 2000))
    assert all((array == number).all() for number, array in held)


def test_the_workers_end_with_the_runner() -> None:
    runner = run(p.Counted(10), 2)
    next(iter(runner))
    workers = [psutil.Process(link.process.pid) for link in runner._crew.links]  # type: ignore[union-attr]
    del runner
    gc.collect()
    assert not any(worker.is_running() for worker in workers)


def test_tensorpacks_old_keywords_work_with_a_warning() -> None:
    with pytest.deprecated_call(match="nr_proc is the old name of num_proc"):
        runner = MultiProcessRunnerZMQ(p.Counted(3), nr_proc=2)
    assert runner.num_proc == 2
    with pytest.deprecated_call():
        assert MultiProcessRunner(p.Counted(3), nr_prefetch=10, nr_proc=2).num_proc == 2


@pytest.mark.parametrize("arguments", [(0, 5), (1, 0), (-1, 5)])
def test_no_workers_or_no_buffer_is_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        MultiProcessRunnerZMQ(p.Counted(3), *arguments)


def test_passes_that_are_given_up_cost_no_shared_memory() -> None:
    runner = run(p.Counted(100_000, (200, 200)))
    (worker,) = runner._crew.links  # type: ignore[union-attr]
    for _ in range(60):
        for number, _array in runner:
            if number == 60:
                break
    assert os.fstat(worker._file.fd).st_size <= 48 << 20  # of the 256 MiB that 60 windows of 50 would have taken


def test_a_forked_child_and_its_parent_do_not_see_each_others_changes() -> None:
    runner = iter(run(p.Counted(100_000, (200, 200))))
    held = [next(runner) for _ in range(20)]
    go, say = os.pipe()
    if not (pid := os.fork()):
        os.read(go, 1)  # until the parent has dropped what it held, and received much more
        unchanged = all((array == number).all() for number, array in held)
        for _, array in held:
            array[...] = -1
        os._exit(0 if unchanged else 1)
    kept = held[:3]
    held.clear()
    for _ in range(300):
        next(runner)
    os.write(say, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert all((array == number).all() for number, array in kept)


@pytest.mark.parametrize("num_proc", ["1", "2"])
def test_an_interrupt_anywhere_leaves_a_runner_that_works(num_proc: str) -> None:
    # In a process of its own: an interrupt may also hit Python's own hooks of a fork, and leave their locks taken.
    script = str(Path(__file__).with_name("interrupted.py"))
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, script, num_proc], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "works\n"


def test_starting_over_leaks_no_file_descriptors() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    runner = run(p.Counted(50, (100, 100)), 2)
    list(islice(runner, 60))
    before = opened()
    for _ in range(10):
        runner.reset_state()
        list(islice(runner, 60))
    assert opened() <= before + 2  # two workers, of which one may not have sent anything when they were counted


def test_a_worker_whose_threads_do_not_end_ends_all_the_same() -> None:
    runner = run(p.Unreachable(3))
    with pytest.raises(PipelineError, match="no such server"):
        list(runner)
    with pytest.raises((PipelineError, WorkerLost), match=r"no such server|after the error that it reported"):
        list(runner)


def _iterate_in_a_daemon(pipe: Any) -> None:
    try:
        run(p.Counted(3))
    except ConfigError as error:
        pipe.send(str(error))


def test_in_a_daemonic_process_it_is_refused_with_the_remedy() -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_iterate_in_a_daemon, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    assert "make it daemon=False" in ours.recv()
    process.join()
