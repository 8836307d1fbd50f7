"""MapData in worker processes: the exact set, in order if asked, whatever travels and however workers are started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pipelines as p
import pytest

from dfserve.dataflow import BatchData, DataFromList, MapData, get_rng
from dfserve.dataflow.parallel.map_and_batch import MultiProcessMapAndBatchData, MultiProcessMapAndBatchDataZMQ
from dfserve.dataflow.parallel.process_map import MultiProcessMapData, MultiProcessMapDataZMQ
from dfserve.errors import ConfigError, DatapointError, EncodeError, PipelineError, WorkerLost


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def reset(ds: Any) -> Any:
    ds.reset_state()
    return ds


def first(ds: Any) -> list[Any]:
    return [dp[0] for dp in ds]


def test_in_order_it_is_mapdata_however_the_workers_are_started(start_method: str) -> None:
    ds = reset(MultiProcessMapData(p.Counted(100, (60, 60)), 2, p.without_threes, ordered=True))
    for _ in range(2):
        found = list(ds)
        assert first(found) == [number for number in range(100) if number % 3]
        assert all((array == number).all() for number, array in found)


@pytest.mark.parametrize("size", [0, 1, 5, 199, 1000])
@pytest.mark.parametrize("claimed", [None, 3])
def test_a_strict_pass_is_exact_whatever_the_length_says(size: int, claimed: int | None) -> None:
    ds = reset(MultiProcessMapDataZMQ(p.Counted(size, claimed=claimed), 3, p.without_threes, strict=True))
    expected = Counter(number for number in range(size) if number % 3)
    assert [Counter(first(ds)) for _ in range(2)] == [expected, expected]


def test_without_strict_it_is_an_endless_stream_that_loses_nothing_over_iterators() -> None:
    ds = reset(MultiProcessMapData(p.Counted(50), 2, p.plain, buffer_size=30))
    seen: Counter[int] = Counter()
    for taken in (1, 49, 13, 137, 400):
        seen.update(first(islice(ds, taken)))
    # 600 of a stream of which 30 are in flight: each of the 50 numbers came 12 times, or one less or more.
    assert set(seen) == set(range(50))
    assert max(seen.values()) - min(seen.values()) <= 2


def test_a_pass_that_was_given_up_is_followed_by_a_whole_one() -> None:
    ds = reset(MultiProcessMapData(p.Counted(300), 2, p.plain, ordered=True))
    for stop in (0, 7, 250):
        assert first(islice(ds, stop)) == list(range(stop))
    assert first(ds) == list(range(300))


@pytest.mark.parametrize("shape", [(), (0, 2), (50,), (3000,), (700, 700)])
def test_arrays_of_any_size_go_there_and_back_and_may_be_written_to(shape: tuple[int, ...]) -> None:
    ds = reset(MultiProcessMapData(p.Counted(8, shape), 2, _plus_one, ordered=True))
    for _ in range(2):
        for number, array in ds:
            assert (array == number + 1).all()
            assert array.shape == shape
            array[...] = 0


def _plus_one(datapoint: list[Any]) -> list[Any]:
    datapoint[1] += 1  # in place: what a worker gets is its own
    return datapoint


def test_the_sources_arrays_are_not_changed_by_a_function_that_writes_to_its_argument() -> None:
    array = np.zeros(1000, np.int64)
    ds = reset(MultiProcessMapData(DataFromList([[0, array]] * 20, shuffle=False), 2, _plus_one, strict=True))
    assert all((dp[1] == 1).all() for dp in ds)
    assert not array.any()


def test_objects_that_the_codec_refuses_go_both_ways() -> None:
    source = MapData(p.Counted(30), p.odd)
    ds = reset(MultiProcessMapData(source, 2, p.plain, ordered=True))
    assert [dp[0].value for dp in ds] == list(range(30))


def test_what_cannot_even_be_pickled_is_an_error_that_names_it() -> None:
    ds = reset(MultiProcessMapData(p.Counted(30), 2, lambda dp: [lambda: dp], strict=True))
    with pytest.raises(PipelineError, match="pickle"):
        list(ds)
    source = reset(MultiProcessMapData(MapData(p.Counted(30), lambda dp: [lambda: dp]), 2, p.plain, strict=True))
    with pytest.raises((AttributeError, EncodeError, TypeError), match=r"pickle|lambda"):
        list(source)


def test_small_and_large_datapoints_of_several_structures_mix() -> None:
    datapoints: list[Any] = [[i] if i % 3 else {"k": np.full((i % 7) * 4000, i)} for i in range(400)]
    ds = reset(MultiProcessMapData(DataFromList(datapoints, shuffle=False), 2, p.plain, ordered=True))
    for index, found in enumerate(ds):
        assert type(found) is type(datapoints[index])
        assert (found["k"] == index).all() if isinstance(found, dict) else found == [index]


def test_a_failing_function_is_an_error_with_key_worker_and_remote_traceback() -> None:
    ds = reset(MultiProcessMapData(p.Counted(100), 2, p.failing_at_40, ordered=True))
    for _ in range(2):
        found: list[int] = []
        with pytest.raises(PipelineError, match=r"ValueError at 40 in .* worker \d of 2: forty") as caught:
            found.extend(dp[0] for dp in ds)
        assert found == list(range(40))
        assert "in failing_at_40" in caught.value.remote_traceback


def test_failures_can_be_skipped_and_are_recorded(tmp_path: Any) -> None:
    from dfserve.dataflow.policy import SkipErrors

    record = tmp_path / "bad.jsonl"
    ds = reset(
        MultiProcessMapData(
            p.Counted(100), 2, p.failing_at_40, ordered=True, on_error=SkipErrors(total=1, quarantine=record)
        )
    )
    assert first(ds) == [number for number in range(100) if number != 40]
    line = record.read_text()
    assert line.count("\n") == 1
    assert '"key": "40"' in line
    assert "in failing_at_40" in line


def test_a_killed_worker_is_an_error_and_the_next_pass_has_new_ones() -> None:
    ds = reset(MultiProcessMapData(p.Counted(100), 2, p.dying_at_40, strict=True))
    for _ in range(2):
        with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
            list(ds)


def test_everything_is_dropped_ends_a_strict_pass_and_is_an_error_of_an_endless_stream() -> None:
    assert list(reset(MultiProcessMapData(p.Counted(20), 2, _nothing, strict=True))) == []
    with pytest.raises(DatapointError, match="yields nothing"):
        next(iter(reset(MultiProcessMapData(p.Counted(20), 2, _nothing))))


def _nothing(_datapoint: Any) -> None:
    return None


def test_one_worker_that_maps_and_batches_is_batchdata_of_mapdata() -> None:
    ds = reset(MultiProcessMapAndBatchData(p.Counted(60), 1, p.without_threes, 8))
    expected = BatchData(MapData(p.Counted(60), p.without_threes), 8)
    for batch, wanted in zip(ds, expected, strict=False):
        assert batch[0].tolist() == wanted[0].tolist()
        assert np.array_equal(batch[1], wanted[1])


def test_batches_of_several_workers_lose_nothing_over_passes() -> None:
    ds = reset(MultiProcessMapAndBatchDataZMQ(p.Counted(10, claimed=10), 2, p.plain, 16, 64))
    batches = list(islice(ds, 50))
    assert all(len(batch[0]) == 16 for batch in batches)
    counts = Counter(number for batch in batches for number in batch[0].tolist())
    assert set(counts) == set(range(10))
    assert max(counts.values()) - min(counts.values()) <= 16
    assert len(ds) == 0


def test_datapoints_that_do_not_fit_into_one_batch_are_an_error_that_names_the_component() -> None:
    source = DataFromList([[np.zeros(1 + i % 2)] for i in range(20)], shuffle=False)
    for on_error in ("raise", "skip"):  # a whole batch would be lost by skipping
        with pytest.raises(PipelineError, match="component 0 of 4 datapoints"):
            next(iter(reset(MultiProcessMapAndBatchData(source, 1, p.plain, 4, on_error=on_error))))


def test_arguments_that_cannot_work_are_refused() -> None:
    for arguments in ((None, p.plain), (0, p.plain), (2, None)):
        with pytest.raises(ConfigError):
            MultiProcessMapData(p.Counted(3), *arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="buffer_size 8 must be above batch_size 8"):
        MultiProcessMapAndBatchData(p.Counted(3), 1, p.plain, 8, 8)
    with pytest.deprecated_call(match="nr_proc"):
        assert MultiProcessMapData(p.Counted(3), nr_proc=2, map_func=p.plain).num_proc == 2


def test_what_cannot_be_unpickled_over_there_or_here_is_an_error(start_method: str) -> None:
    source = MapData(p.Counted(20), p.one_way)
    with pytest.raises(PipelineError, match="missing 1 required positional argument"):
        list(reset(MultiProcessMapData(source, 2, p.plain, strict=True)))
    ds = reset(MultiProcessMapData(p.Counted(20), 2, p.one_way, strict=True))
    for _ in range(2):
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            list(ds)


def test_what_cannot_be_sent_is_skipped_like_any_failure_whatever_it_raises() -> None:
    source = MapData(p.Counted(100), p.gone_at_40)
    ds = reset(MultiProcessMapData(source, 2, p.plain, ordered=True, on_error="skip"))
    assert first(ds) == [number for number in range(100) if number != 40]


def test_a_worker_that_dies_while_the_parent_sends_to_it_is_noticed() -> None:
    ds = reset(MultiProcessMapData(MapData(p.Counted(1000), p.bulky), 2, p.slow_and_small, strict=True))
    victim = ds._flow.pool._crew.links[0].process.pid
    os.kill(victim, signal.SIGSTOP)  # so that its pipe is full for certain
    threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(WorkerLost, match="SIGKILL"):
        list(ds)


def test_nested_arrays_may_be_written_to() -> None:
    ds = reset(MultiProcessMapData(MapData(p.Counted(10), p.nested), 2, _plus_one_inside, ordered=True))
    for number, (small, large) in ds:
        assert small.tolist() == [number + 1] * 3
        assert (large == number + 1).all()
        small += 1
        large += 1


def _plus_one_inside(datapoint: list[Any]) -> list[Any]:
    for array in datapoint[1]:
        array += 1
    return datapoint


def test_a_generator_made_before_the_workers_draws_differently_in_each() -> None:
    rng = get_rng()
    ds = reset(MultiProcessMapData(p.Counted(60), 3, lambda dp: [dp[0], int(rng.randint(1 << 60))], strict=True))
    drawn = [dp[1] for dp in ds]
    assert len(set(drawn)) == 60
