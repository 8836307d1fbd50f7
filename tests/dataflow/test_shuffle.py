"""Shuffling within a buffer: the same datapoints in another order, and none lost at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import DataFromGenerator, DataFromList
from dfserve.dataflow.shuffle import LocallyShuffleData
from dfserve.errors import ConfigError, DfserveError


def numbers(count: int) -> DataFromList:
    return DataFromList([[n] for n in range(count)], shuffle=False)


def shuffled(count: int, *arguments: Any, **keywords: Any) -> list[int]:
    ds = LocallyShuffleData(numbers(count), *arguments, **keywords)
    ds.reset_state()
    return [n for (n,) in ds]


@given(st.integers(0, 60), st.integers(1, 80), st.integers(1, 4), st.none() | st.integers(1, 100))
def test_every_pass_yields_each_datapoint_as_often_as_said(
    count: int, buffer_size: int, num_reuse: int, interval: int | None
) -> None:
    ds = LocallyShuffleData(numbers(count), buffer_size, num_reuse, interval)
    ds.reset_state()
    for _ in range(2):
        datapoints = Counter(n for (n,) in ds)
        assert datapoints == dict.fromkeys(range(count), num_reuse)
    assert len(ds) == count * num_reuse


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 3))
def test_no_datapoint_comes_earlier_than_the_buffer_allows(count: int, buffer_size: int, num_reuse: int) -> None:
    for place, n in enumerate(shuffled(count, buffer_size, num_reuse)):
        assert n * num_reuse < place + buffer_size


def test_a_buffer_as_large_as_the_source_makes_any_order() -> None:
    ds = LocallyShuffleData(numbers(3), 3)
    ds.reset_state()
    ds.rng.seed(5)
    counts = Counter(tuple(n for (n,) in ds) for _ in range(3000))
    assert len(counts) == 6
    assert min(counts.values()) > 390  # 500 each on average; 5 standard deviations are 102


def test_datapoints_go_far_from_their_places_also_with_long_intervals() -> None:
    for interval in (None, 10, 200):
        order = shuffled(1000, 200, shuffle_interval=interval)
        assert sum(abs(place - n) for place, n in enumerate(order)) / 1000 > 40
        assert order[:200] != sorted(order[:200])


def test_passes_differ() -> None:
    ds = LocallyShuffleData(numbers(50), 10)
    ds.reset_state()
    assert list(ds) != list(ds)


def test_reading_is_no_further_ahead_than_the_buffer() -> None:
    read = []

    def source() -> Any:
        for n in range(100):
            read.append(n)
            yield [n]

    ds = LocallyShuffleData(DataFromGenerator(source), 10)
    ds.reset_state()
    datapoints = iter(ds)
    next(datapoints)
    assert len(read) == 11


def test_the_old_keyword_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="nr_reuse is the old name of num_reuse"):
        ds = LocallyShuffleData(numbers(3), 3, nr_reuse=2)  # type: ignore[call-arg]
    assert len(ds) == 6


@pytest.mark.parametrize("arguments", [(0,), (-3,), (3, 0), (3, 1, 0)])
def test_numbers_below_one_are_refused(arguments: Any) -> None:
    with pytest.raises(ConfigError, match="it is at least 1"):
        LocallyShuffleData(numbers(3), *arguments)


def test_shuffling_without_a_reset_says_what_to_call() -> None:
    with pytest.raises(DfserveError, match=r"call reset_state\(\)"):
        list(LocallyShuffleData(numbers(3), 3))
