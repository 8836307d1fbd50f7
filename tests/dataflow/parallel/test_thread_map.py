"""MapData in threads: the same data, errors as they were raised, and no thread that outlives its use."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import islice
from types import ModuleType
from typing import Any

import pipelines as p
import pytest

from dfserve.dataflow import DataFlow, DataFromGenerator, DataFromList, MapData, TestDataSpeed
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.parallel.thread_map import MultiThreadMapData
from dfserve.errors import ConfigError, DatapointError, DfserveError

MODES = [{"strict": True}, {"ordered": True}]
Until = Callable[..., Any]


def numbers(size: int) -> DataFromList:
    return DataFromList([[number] for number in range(size)], shuffle=False)


def mapped(size: int, func: Callable[[Any], Any], num_thread: int = 3, **options: Any) -> MultiThreadMapData:
    ds = MultiThreadMapData(numbers(size), num_thread, func, **options)
    ds.reset_state()
    return ds


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("MultiThreadMapData")]


@pytest.fixture(autouse=True)
def _no_threads_left(until: Until) -> Any:
    gc.collect()  # an earlier test elsewhere may have left some in a cycle
    until(lambda: not threads(), "earlier tests' threads to end")
    yield
    gc.collect()
    until(lambda: not threads(), "the threads to end")


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("size", [0, 1, 7, 500])
def test_a_pass_has_exactly_the_datapoints_of_the_map(size: int, options: dict[str, bool]) -> None:
    ds = mapped(size, p.without_threes, buffer_size=20, **options)
    expected = list(MapData(numbers(size), p.without_threes))
    for _ in range(3):
        found = list(ds)
        assert (found if "ordered" in options else sorted(found)) == expected


@pytest.mark.filterwarnings("ignore:isSet")  # as an error it would kill tensorpack's threads, and it waits for them
def test_a_strict_pass_has_tensorpacks_datapoints(tensorpack: ModuleType) -> None:
    def squared(datapoint: list[int]) -> list[int]:
        return [datapoint[0] ** 2]

    source = tensorpack.DataFromList([[n] for n in range(50)], shuffle=False)
    theirs = tensorpack.MultiThreadMapData(source, 3, squared, buffer_size=20, strict=True)
    theirs.reset_state()
    ours = MultiThreadMapData(source, 3, squared, buffer_size=20, strict=True)
    ours.reset_state()
    assert sorted(ours) == sorted(islice(theirs, 50))
    theirs._threads[0].stop()
    for _ in range(3):
        theirs._in_queue.put([0])  # or they would wait five seconds for a task before they look


@pytest.mark.parametrize("options", MODES)
def test_a_source_without_a_length_will_do(options: dict[str, bool]) -> None:
    ds = MultiThreadMapData(DataFromGenerator(lambda: iter([[1], [2]])), 2, p.plain, **options)
    ds.reset_state()
    assert sorted(ds) == sorted(ds) == [[1], [2]]


def test_without_strict_it_has_no_end_and_goes_on_where_the_last_iterator_stopped() -> None:
    ds = mapped(1000, p.plain, buffer_size=10)
    seen = {number for _ in range(40) for [number] in islice(ds, 5)}
    assert len(seen) == 200
    assert max(seen) < 210, "what was not seen of those that were read, at most 10, is in flight"
    assert len(list(islice(ds, 3000))) == 3000


def test_the_functions_run_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=60)

    def meet(datapoint: Any) -> Any:
        together.wait()
        return datapoint

    assert len(list(mapped(40, meet, num_thread=4, strict=True))) == 40


def test_no_more_than_the_buffer_is_in_flight_although_an_ordered_one_waits_for_its_first() -> None:
    let_go = threading.Event()
    begun = []

    def first_waits(datapoint: list[int]) -> list[int]:
        begun.append(datapoint[0])
        if len(begun) == 6:
            let_go.set()  # all that may be in flight is
        if datapoint[0] == 0:
            assert let_go.wait(60)
        return datapoint

    ds = iter(mapped(100, first_waits, buffer_size=6, ordered=True))
    assert next(ds) == [0]
    assert sorted(begun) == list(range(6))
    assert len(list(ds)) == 99


def test_the_function_may_change_the_datapoint_but_not_the_sources() -> None:
    source = [[1], [2]]

    def replace(datapoint: list[int]) -> list[int]:
        datapoint[0] = 0
        return datapoint

    ds = MultiThreadMapData(DataFromList(source, shuffle=False), 2, replace, strict=True)
    ds.reset_state()
    assert list(ds) == [[0], [0]]
    assert source == [[1], [2]]


def test_dicts_are_datapoints_too() -> None:
    ds = MultiThreadMapData([{"x": n} for n in range(5)], 2, lambda dp: {"x": -dp["x"]}, ordered=True)
    ds.reset_state()
    assert list(ds) == [{"x": -n} for n in range(5)]


@pytest.mark.parametrize("options", [{}, *MODES])
def test_an_error_of_the_function_surfaces_as_it_was_raised_and_the_next_pass_works(options: dict[str, bool]) -> None:
    ds = mapped(100, p.failing_at_40, **options)
    for _ in range(2):
        with pytest.raises(ValueError, match="forty is not for us") as raised:
            list(ds)
        assert "in failing_at_40" in "".join(traceback.format_exception(raised.value))
        assert key_of(raised.value) == "40"
    assert len(list(islice(ds, 5))) == 5


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_thread_does_not_die_of_what_the_function_raises(raised: type[BaseException]) -> None:
    def leave(datapoint: list[int]) -> list[int]:
        if datapoint[0] in (3, 4, 5):
            raise raised
        return datapoint

    ds = mapped(20, leave, num_thread=3, strict=True, on_error="skip")
    for _ in range(3):
        with pytest.raises(raised):
            list(ds)
    assert len(threads()) == 3


def test_errors_are_skipped_within_limits() -> None:
    assert len(list(mapped(100, p.failing_at_40, strict=True, on_error="skip"))) == 99


def test_a_raising_source_surfaces_and_the_next_pass_works() -> None:
    ds = MultiThreadMapData(p.failing_source(), 3, p.plain, strict=True)
    ds.reset_state()
    for _ in range(2):
        seen = []
        with pytest.raises(ValueError, match="forty") as raised:
            seen.extend(datapoint[0] for datapoint in ds)
        assert key_of(raised.value) == "40"


def test_an_endless_stream_of_nothing_is_an_error() -> None:
    for size in (0, 5):
        with pytest.raises(DatapointError, match="yields nothing"):
            next(iter(mapped(size, lambda datapoint: None)))


@pytest.mark.parametrize("options", MODES)
def test_abandoned_passes_leave_nothing_behind_for_the_next(options: dict[str, bool]) -> None:
    ds = mapped(50, p.slow, buffer_size=20, **options)
    for taken in (1, 10, 49):
        assert len(list(islice(ds, taken))) == taken
    assert sorted(ds) == [[number] for number in range(50)]
    assert len(threads()) == 3


def test_only_the_newest_iterator_goes_on() -> None:
    ds = mapped(50, p.plain, strict=True)
    older = iter(ds)
    next(older)
    newer = iter(ds)
    assert next(newer)
    with pytest.raises(DfserveError, match="superseded"):
        next(older)
    assert len(list(newer)) == 49


def test_threads_start_with_the_first_datapoint_and_end_with_the_operator(until: Until) -> None:
    ds = mapped(50, p.plain)
    datapoints = iter(ds)
    assert not threads()
    next(datapoints)
    assert len(threads()) == 3
    del ds
    assert len(threads()) == 3, "the iterator holds it"
    del datapoints
    until(lambda: not threads(), "the threads to end")  # without gc.collect(): nothing is in a cycle


def test_threads_in_the_middle_of_their_work_end_after_it(until: Until) -> None:
    started, let_go = threading.Event(), threading.Event()

    def wait(datapoint: Any) -> Any:
        if datapoint[0]:
            started.set()
            assert let_go.wait(60)
        return datapoint

    ds = mapped(50, wait)
    next(iter(ds))
    assert started.wait(60)
    del ds
    let_go.set()
    until(lambda: not threads(), "the threads to end")


def test_resetting_again_ends_the_old_threads(until: Until) -> None:
    ds = mapped(50, p.plain, strict=True)
    datapoints = iter(ds)
    next(datapoints)
    old = threads()
    ds.reset_state()
    until(lambda: not any(thread.is_alive() for thread in old), "the old threads to end")
    with pytest.raises(DfserveError, match="superseded"):
        next(datapoints)
    assert len(list(ds)) == 50


def test_datapoints_are_not_kept_alive_once_they_were_yielded(until: Until) -> None:
    class Large(list):  # type: ignore[type-arg]
        pass

    source = DataFromGenerator(lambda: (Large([number]) for number in range(5)))
    ds = MultiThreadMapData(source, 2, lambda datapoint: Large(datapoint), strict=True)
    ds.reset_state()
    assert len(list(ds)) == 5
    until(lambda: not any(type(found) is Large for found in gc.get_objects()), "the threads to let go")
    assert threads()


def test_it_pickles_and_the_copy_is_to_be_reset() -> None:
    ds = MultiThreadMapData(p.numbers(9), 2, p.plain, strict=True)
    ds.reset_state()
    datapoints = iter(ds)
    next(datapoints)
    twin = pickle.loads(pickle.dumps(ds))
    with pytest.raises(DfserveError, match="was not reset"):
        iter(twin)
    twin.reset_state()
    assert len(list(twin)) == 9
    assert len(list(datapoints)) == 8


def test_maps_in_threads_nest_and_measure() -> None:
    inner = MultiThreadMapData(numbers(30), 2, p.plain, ordered=True)
    outer = MultiThreadMapData(inner, 2, p.plain, ordered=True)
    outer.reset_state()
    assert list(outer) == list(numbers(30))
    assert TestDataSpeed(MultiThreadMapData(numbers(30), 2, p.plain), 50, 5).start() > 0


def test_old_keywords_warn_and_bad_arguments_are_refused() -> None:
    with pytest.warns(DeprecationWarning, match="nr_thread"):
        assert MultiThreadMapData(numbers(3), nr_thread=2, map_func=p.plain).num_thread == 2
    with pytest.raises(ConfigError, match="num_thread is None"):
        MultiThreadMapData(numbers(3), map_func=p.plain)
    with pytest.raises(ConfigError, match="needs map_func"):
        MultiThreadMapData(numbers(3), 2)
    with pytest.raises(ConfigError, match="num_thread is 0"):
        MultiThreadMapData(numbers(3), 0, p.plain)


EXITS = """
import itertools, time, threading
from dfserve.dataflow import DataFromGenerator
from dfserve.dataflow.parallel.thread_map import MultiThreadMapData
source = DataFromGenerator(lambda: ([n] for n in itertools.count()))
def func(datapoint):
    {body}
    return datapoint
ds = MultiThreadMapData(source, 4, func, buffer_size=50)
ds.reset_state()
datapoints = iter(ds)
print(next(datapoints)[0] >= 0, threading.active_count())
"""


@pytest.mark.parametrize("body", ["pass", "datapoint[0] and time.sleep(1000)"], ids=["busy", "stuck"])
def test_a_program_ends_although_its_stream_does_not(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXITS.format(body=body)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 5\n", "")


FORKS = """
import os, sys
from itertools import islice
from dfserve.dataflow import DataFromList
from dfserve.dataflow.parallel.thread_map import MultiThreadMapData
from dfserve.errors import DfserveError
ds = MultiThreadMapData(DataFromList([[n] for n in range(30)]), 4, list, strict=True)
ds.reset_state()
datapoints = iter(ds)
before = list(islice(datapoints, 10))
if not (pid := os.fork()):
    for attempt in (lambda: next(datapoints), lambda: iter(ds)):
        try:
            attempt()
        except DfserveError as error:
            print(error, flush=True)
    ds.reset_state()
    print(len(list(ds)), flush=True)
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


def test_a_slow_source_does_not_hold_back_what_is_finished() -> None:
    enough = threading.Event()
    read = []

    class Slow(DataFlow):
        def __iter__(self) -> Any:
            while not enough.is_set():
                assert len(read) < 2000, "a minute's datapoints were read, and none of them was handed out"
                time.sleep(0.03)  # slower than the look-out for finished ones
                read.append([len(read)])
                yield list(read[-1])

    ds = MultiThreadMapData(Slow(), 2, p.plain, buffer_size=10_000, ordered=True)
    ds.reset_state()
    datapoints = iter(ds)
    assert [next(datapoints) for _ in range(2)] == [[0], [1]]  # although the source has not ended
    enough.set()
    assert list(datapoints) == read[2:]
