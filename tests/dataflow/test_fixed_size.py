"""Passes of a fixed length, with and without memory of where the last one stopped."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import cycle, islice
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import DataFlow, DataFromList, MapData
from dfserve.dataflow.fixed_size import FixedSizeData
from dfserve.errors import ConfigError, DatapointError


def numbers(count: int) -> DataFromList:
    return DataFromList([[n] for n in range(count)], shuffle=False)


def flat(datapoints: Any) -> list[int]:
    return [n for (n,) in datapoints]


@given(st.integers(1, 7), st.integers(1, 20), st.lists(st.integers(0, 20), max_size=6))
def test_passes_go_on_where_the_last_one_stopped_whether_whole_or_given_up(
    count: int, size: int, takes: list[int]
) -> None:
    ds = FixedSizeData(numbers(count), size)
    endless = cycle(range(count))
    for take in takes:
        taken = flat(islice(ds, take))
        assert taken == list(islice(endless, min(take, size)))
    assert len(ds) == size


@given(st.integers(1, 7), st.integers(1, 20), st.lists(st.integers(0, 20), max_size=6))
def test_passes_without_memory_begin_at_the_beginning_whether_the_last_was_whole_or_given_up(
    count: int, size: int, takes: list[int]
) -> None:
    ds = FixedSizeData(numbers(count), size, False)
    for take in takes:
        assert flat(islice(ds, take)) == list(islice(cycle(range(count)), min(take, size)))


@pytest.mark.parametrize("keep_state", [True, False])
@pytest.mark.parametrize("size", [1, 3, 5, 6, 12])
def test_whole_passes_are_tensorpacks(tensorpack: ModuleType, size: int, keep_state: bool) -> None:
    ours = FixedSizeData(numbers(5), size, keep_state)
    theirs = tensorpack.FixedSizeData(tensorpack.DataFromList([[n] for n in range(5)], shuffle=False), size, keep_state)
    for ds in (ours, theirs):
        ds.reset_state()
    for _ in range(4):
        assert list(ours) == list(theirs)


@pytest.mark.parametrize("keep_state", [True, False])
def test_a_source_that_yields_nothing_is_an_error_and_not_a_hang(keep_state: bool) -> None:
    for source in (numbers(0), MapData(numbers(3), lambda dp: None), iter(())):
        with pytest.raises(DatapointError, match="yields nothing"):
            list(FixedSizeData(source, 2, keep_state))


def test_a_source_that_can_be_read_once_is_an_error_when_it_is_spent() -> None:
    ds = FixedSizeData(iter([[0], [1], [2]]), 2)
    assert flat(ds) == [0, 1]
    with pytest.raises(DatapointError, match="runs once"):
        list(ds)


def test_after_an_error_of_the_source_the_next_pass_begins_anew_and_is_not_empty() -> None:
    class Fails(DataFlow):
        error: BaseException | None = None

        def __iter__(self) -> Iterator[Any]:
            yield [0]
            if self.error is not None:
                raise self.error
            yield [1]

    source = Fails()
    ds = FixedSizeData(source, 2)
    for error in (OSError("the disk was busy"), KeyboardInterrupt()):
        source.error = error
        with pytest.raises(type(error)):
            list(ds)
        source.error = None
        assert flat(ds) == [0, 1]


def test_two_passes_at_the_same_time_share_what_comes() -> None:
    ds = FixedSizeData(numbers(6), 3)
    assert [(a[0], b[0]) for a, b in zip(ds, ds, strict=True)] == [(0, 1), (2, 3), (4, 5)]


def test_a_reset_and_a_worker_begin_at_the_beginning() -> None:
    ds = FixedSizeData(numbers(5), 3)
    assert flat(ds) == [0, 1, 2]
    assert flat(pickle.loads(pickle.dumps(ds))) == [0, 1, 2]
    assert flat(ds) == [3, 4, 0]
    ds.reset_state()
    assert flat(ds) == [0, 1, 2]


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size is {size}"):
        FixedSizeData(numbers(1), size)
