"""Pipelines in threads: one is itself, several are independent, and no thread outlives its use."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice
from types import ModuleType
from typing import Any

import pipelines as p
import pytest

from dfserve.dataflow import DataFlow, DataFromList, MapData, RNGDataFlow, fix_rng_seed
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.parallel.thread_runner import MultiThreadRunner
from dfserve.errors import ConfigError, DatapointError, DfserveError

Until = Callable[..., Any]


def numbers(size: int = 100) -> DataFromList:
    return DataFromList([[number] for number in range(size)], shuffle=False)


def run(get_df: Callable[[], Any], num_thread: int = 1, num_prefetch: int = 10) -> MultiThreadRunner:
    runner = MultiThreadRunner(get_df, num_prefetch, num_thread)
    runner.reset_state()
    return runner


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("MultiThreadRunner")]


@pytest.fixture(autouse=True)
def _nothing_left(until: Until) -> Iterator[None]:
    gc.collect()  # an earlier test elsewhere may have left some in a cycle
    until(lambda: not threads(), "earlier tests' threads to end")
    yield
    gc.collect()
    until(lambda: not threads(), "the threads to end")


class Endless(DataFlow):
    def __iter__(self) -> Iterator[list[int]]:
        return ([number] for number in count())


class Draws(RNGDataFlow):
    def __iter__(self) -> Iterator[list[int]]:
        name = int(self.rng.randint(1 << 30))
        while True:
            yield [name, int(self.rng.randint(1 << 30))]


@pytest.mark.parametrize("num_prefetch", [1, 7, 1000])
@pytest.mark.parametrize("size", [0, 1, 100])
def test_one_thread_gives_the_same_datapoints_in_the_same_order(size: int, num_prefetch: int) -> None:
    runner = run(lambda: numbers(size), num_prefetch=num_prefetch)
    assert len(runner) == size
    for _ in range(3):
        assert list(runner) == list(numbers(size))


@pytest.mark.parametrize("claimed", [None, 3, 50])
def test_a_pass_of_one_thread_is_a_pass_of_the_pipeline_whatever_its_length_says(claimed: int | None) -> None:
    runner = run(lambda: p.Counted(20, claimed=claimed))
    for _ in range(2):
        assert [datapoint[0] for datapoint in runner] == list(range(20))


@pytest.mark.filterwarnings("ignore:isSet")  # as an error it would kill tensorpack's threads, and it waits for them
@pytest.mark.parametrize("num_thread", [1, 3])
def test_a_pass_is_as_long_as_tensorpacks(tensorpack: ModuleType, num_thread: int) -> None:
    def made() -> Any:
        return tensorpack.DataFromList([[n] for n in range(20)], shuffle=False)

    theirs = tensorpack.MultiThreadRunner(made, 10, num_thread)
    theirs.reset_state()
    ours = run(made, num_thread)
    assert len(list(ours)) == len(list(theirs)) == len(ours) == len(theirs) == 20
    if num_thread == 1:
        assert list(ours) == list(numbers(20))
    for thread in theirs.threads:
        thread.stop()
    with theirs.queue.mutex:  # or one that waits for room would do so for five seconds before it looks
        theirs.queue.queue.clear()
        theirs.queue.not_full.notify_all()
    for thread in theirs.threads:
        thread.join(60)
        assert not thread.is_alive()


def test_several_threads_run_pipelines_of_their_own_and_a_pass_is_the_length_of_one() -> None:
    made = []

    def get_df() -> DataFlow:
        made.append(numbers(10))
        return made[-1]

    runner = run(get_df, num_thread=3)
    assert len(made) == 3
    seen = Counter(number for _ in range(30) for [number] in runner)
    assert seen.total() == 300
    assert set(seen) == set(range(10))


def test_several_threads_without_a_length_have_no_end() -> None:
    runner = run(lambda: p.Counted(5), num_thread=2)
    assert len(list(islice(runner, 100))) == 100
    with pytest.raises(NotImplementedError):
        len(runner)


def test_no_more_is_prepared_than_was_asked_for() -> None:
    made = []
    enough = threading.Event()

    def noting(datapoint: list[int]) -> list[int]:
        made.append(datapoint)
        if len(made) == 5:
            enough.set()
        return datapoint

    datapoints = iter(run(lambda: MapData(Endless(), noting), num_prefetch=3))
    assert next(datapoints) == [0]
    assert enough.wait(60), "the one that was taken, three that lie ready, and one in the thread's hand"
    assert len(made) == 5
    assert next(datapoints) == [1]


@pytest.mark.parametrize("num_prefetch", [1, 10])
def test_an_abandoned_pass_is_given_up_and_the_next_one_is_whole(num_prefetch: int) -> None:
    runner = run(lambda: numbers(50), num_prefetch=num_prefetch)
    for taken in (1, 49, 0, 20, 50):
        assert list(islice(runner, taken)) == list(numbers(taken))
        iter(runner)  # not even begun
        assert list(runner) == list(numbers(50))


def test_an_endless_pass_can_be_given_up() -> None:
    runner = run(Endless)
    for _ in range(3):
        assert list(islice(runner, 4)) == [[0], [1], [2], [3]]


@pytest.mark.parametrize("num_thread", [1, 3])
def test_an_error_of_the_pipeline_surfaces_as_it_was_raised_and_the_next_pass_works(num_thread: int) -> None:
    def passes(runner: MultiThreadRunner) -> None:
        for _ in range(10):
            list(runner)

    runner = run(p.failing_source, num_thread)
    for _ in range(4):
        with pytest.raises(ValueError, match="forty is not for us") as raised:
            passes(runner)
        assert "in failing_at_40" in "".join(traceback.format_exception(raised.value))
        assert key_of(raised.value) == "40"
    assert len(threads()) == num_thread


def test_what_came_before_an_error_is_yielded_first() -> None:
    datapoints = iter(run(p.failing_source))
    assert [next(datapoints)[0] for _ in range(40)] == list(range(40))
    with pytest.raises(ValueError, match="forty"):
        next(datapoints)


def test_an_error_without_a_key_gets_its_place_in_the_pass() -> None:
    class Breaking(DataFlow):
        def __iter__(self) -> Iterator[list[int]]:
            yield from numbers(7)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk") as raised:
        list(run(Breaking))
    assert key_of(raised.value) == "7"


@pytest.mark.parametrize("num_thread", [1, 2])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_thread_does_not_die_of_what_its_pipeline_raises(num_thread: int, error: type[BaseException]) -> None:
    def leave(datapoint: Any) -> Any:
        raise error

    runner = run(lambda: MapData(numbers(), leave), num_thread)
    for _ in range(4):
        with pytest.raises(error):
            list(runner)
    assert len(threads()) == num_thread


def test_several_pipelines_that_yield_nothing_are_an_error() -> None:
    runner = run(lambda: p.Counted(0), num_thread=2)
    for _ in range(3):
        with pytest.raises(DatapointError, match="yields nothing"):
            next(iter(runner))


@pytest.mark.parametrize("num_thread", [1, 2])
def test_only_the_newest_iterator_goes_on(num_thread: int) -> None:
    runner = run(numbers, num_thread)
    older = iter(runner)
    next(older)
    newer = iter(runner)
    with pytest.raises(DfserveError, match="superseded"):
        next(older)
    assert len(list(newer)) == 100


def test_every_thread_draws_numbers_of_its_own_and_a_seed_repeats_them() -> None:
    def streams(num_thread: int) -> dict[int, list[int]]:
        fix_rng_seed(3)
        found: dict[int, list[int]] = {}
        datapoints = iter(run(Draws, num_thread))
        while len(found) < num_thread or sum(map(len, found.values())) < 200:  # one thread may be late
            name, number = next(datapoints)
            found.setdefault(name, []).append(number)
        return found

    first, second = streams(3), streams(3)
    assert first.keys() == second.keys()
    for name in first:
        length = min(len(first[name]), len(second[name]))
        assert first[name][:length] == second[name][:length]
    assert len({tuple(numbers[:1]) for numbers in first.values()}) == len(first)
    (one,), (again,) = streams(1).values(), streams(1).values()
    assert one == again


def test_pipelines_are_made_and_reset_by_whoever_resets_the_runner() -> None:
    calls = []

    class Noting(DataFlow):
        def __init__(self) -> None:
            calls.append(("made", threading.current_thread()))

        def reset_state(self) -> None:
            calls.append(("reset", threading.current_thread()))

        def __iter__(self) -> Iterator[list[int]]:
            return iter([[1]])

        def __len__(self) -> int:
            return 1

    runner = MultiThreadRunner(Noting, 5, 2)
    assert not calls
    assert len(runner) == 1
    runner.reset_state()
    assert calls == [(what, threading.main_thread()) for what in ("made", "made", "reset", "reset")]
    runner.reset_state()
    assert len(calls) == 8, "the old ones may be in the middle of a pass"


def test_threads_start_with_the_first_datapoint_and_end_with_the_runner(until: Until) -> None:
    runner = run(Endless, 3, 2)
    datapoints = iter(runner)
    assert not threads()
    next(datapoints)
    assert len(threads()) == 3
    del runner, datapoints
    until(lambda: not threads(), "the threads to end")


def test_resetting_again_ends_the_old_threads(until: Until) -> None:
    runner = run(numbers)
    datapoints = iter(runner)
    next(datapoints)
    old = threads()
    runner.reset_state()
    until(lambda: not any(thread.is_alive() for thread in old), "the old threads to end")
    newer = iter(runner)
    with pytest.raises(DfserveError, match="superseded"):
        next(datapoints)
    assert list(newer) == list(numbers())


def test_a_runner_that_was_not_reset_says_so() -> None:
    with pytest.raises(DfserveError, match=r"MultiThreadRunner was not reset: call reset_state\(\)"):
        iter(MultiThreadRunner(numbers, 5, 1))


def test_it_pickles_and_the_copy_is_to_be_reset() -> None:
    runner = run(p.numbers)
    datapoints = iter(runner)
    next(datapoints)
    twin = pickle.loads(pickle.dumps(runner))
    with pytest.raises(DfserveError, match="was not reset"):
        iter(twin)
    twin.reset_state()
    assert len(list(twin)) == 100
    assert len(list(datapoints)) == 99


def test_old_keywords_warn_and_bad_arguments_are_refused() -> None:
    with pytest.warns(DeprecationWarning, match="old name"):
        assert MultiThreadRunner(numbers, nr_prefetch=4, nr_thread=2).num_thread == 2
    with pytest.raises(ConfigError, match="num_prefetch is 0"):
        MultiThreadRunner(numbers, 0, 1)
    with pytest.raises(ConfigError, match="num_thread is 0"):
        MultiThreadRunner(numbers, 5, 0)
    with pytest.raises(ConfigError, match="no source of datapoints"):
        run(lambda: None)


EXITS = """
import threading, time
from itertools import count
from dfserve.dataflow import DataFromGenerator
from dfserve.dataflow.parallel.thread_runner import MultiThreadRunner
def numbers():
    for n in count():
        {body}
        yield [n]
runner = MultiThreadRunner(lambda: DataFromGenerator(numbers), 5, 4)
runner.reset_state()
datapoints = iter(runner)
print(next(datapoints), threading.active_count())
"""


@pytest.mark.parametrize("body", ["pass", "n and time.sleep(1000)"], ids=["busy", "stuck"])
def test_a_program_ends_although_its_pipelines_do_not(body: str) -> None:
    command = [sys.executable, "-c", EXITS.format(body=body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0] 5\n", "")


FORKS = """
import os, sys
from itertools import islice
from dfserve.dataflow import DataFromList
from dfserve.dataflow.parallel.thread_runner import MultiThreadRunner
from dfserve.errors import DfserveError
runner = MultiThreadRunner(lambda: DataFromList([[n] for n in range(30)]), 4, 1)
runner.reset_state()
datapoints = iter(runner)
before = list(islice(datapoints, 10))
if not (pid := os.fork()):
    for attempt in (lambda: next(datapoints), lambda: iter(runner)):
        try:
            attempt()
        except DfserveError as error:
            print(error, flush=True)
    runner.reset_state()
    print(len(list(runner)), flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(before) + len(list(datapoints)) == 30, "the child touched nothing of the parent's"
"""


def test_a_forked_child_is_told_to_reset_and_then_has_threads_of_its_own() -> None:
    # -W: newer Pythons warn of every fork of a process with threads
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert told[0] == told[1]
    assert "call reset_state() in the process that iterates" in told[0]
    assert told[2:] == ["30"]
