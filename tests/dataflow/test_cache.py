"""The cache: filled by a whole pass only."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from dfserve.dataflow import DataFlow, DataFromGenerator, MapData, RepeatedData
from dfserve.dataflow.cache import CacheData


class Reads(DataFlow):
    """Five datapoints, and how many passes there were."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        yield from ([n, {"pass": self.passes}] for n in range(5))

    def __len__(self) -> int:
        return 5


def cached(source: Any, shuffle: bool = False) -> CacheData:
    ds = CacheData(source, shuffle)
    ds.reset_state()
    return ds


def test_the_source_is_read_once() -> None:
    source = Reads()
    ds = cached(source)
    first, second, third = list(ds), list(ds), list(ds)
    assert first == second == third
    assert (source.passes, len(ds)) == (1, 5)


@pytest.mark.parametrize("taken", [0, 1, 4, 5])
def test_a_pass_that_was_given_up_is_not_taken_for_the_whole(taken: int) -> None:
    ds = cached(Reads())
    # Taking all five and not asking for a sixth does not tell that there is none.
    assert len(list(islice(ds, taken))) == taken
    assert [n for n, _ in ds] == [0, 1, 2, 3, 4]
    assert [n for n, _ in ds] == [0, 1, 2, 3, 4]


def test_a_pass_that_failed_is_not_taken_for_the_whole() -> None:
    fail = [True]

    def once(dp: Any) -> Any:
        if dp[0] == 3 and fail.pop():
            raise OSError("the disk was busy")
        return dp

    ds = cached(MapData(Reads(), once))
    with pytest.raises(OSError, match="busy"):
        list(ds)
    fail.append(False)
    assert [n for n, _ in ds] == [0, 1, 2, 3, 4]


def test_two_first_passes_at_the_same_time_are_both_whole() -> None:
    ds = cached(Reads())
    assert [(a[0], b[0]) for a, b in zip(ds, ds, strict=True)] == [(n, n) for n in range(5)]
    assert len(list(ds)) == 5


def test_a_shuffled_cache_yields_the_same_datapoints_in_another_order_each_pass() -> None:
    source = DataFromGenerator(lambda: ([n] for n in range(50)))
    ds = cached(source, shuffle=True)
    first, second, third = list(ds), list(ds), list(ds)
    assert first == [[n] for n in range(50)]
    assert sorted(second) == sorted(third) == first
    assert first != second != third


def test_shuffled_passes_at_the_same_time_do_not_disturb_each_other() -> None:
    ds = cached(([n] for n in range(30)), shuffle=True)
    list(ds)
    pairs = list(zip(ds, ds, strict=True))
    assert sorted(a for a, _ in pairs) == sorted(b for _, b in pairs) == [[n] for n in range(30)]


def test_a_source_that_can_be_read_once_can_be_repeated_from_the_cache() -> None:
    ds = cached(DataFromGenerator([n] for n in range(3)))
    assert list(islice(RepeatedData(ds, -1), 7)) == [[0], [1], [2], [0], [1], [2], [0]]


def test_its_length_is_the_sources_until_it_knows_better() -> None:
    ds = cached(MapData(Reads(), lambda dp: dp if dp[0] else None))
    assert len(ds) == 5
    list(ds)
    assert len(ds) == 4


def test_an_empty_pass_is_a_pass() -> None:
    source = Reads()
    ds = cached(MapData(source, lambda dp: None))
    assert list(ds) == list(ds) == []
    assert source.passes == 1


def test_a_reset_and_a_worker_begin_with_an_empty_cache() -> None:
    source = Reads()
    ds = cached(source)
    list(ds)
    ds.reset_state()
    list(ds)
    assert source.passes == 2
    copy = pickle.loads(pickle.dumps(ds))
    assert len(list(copy)) == 5
    assert copy.ds.passes == 3
