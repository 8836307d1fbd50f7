"""Repetition, finite and without end."""

from __future__ import annotations

from itertools import islice
from types import ModuleType
from typing import Any

import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList, MapData, RepeatedData
from dfserve.dataflow.repeat import RepeatedDataPoint
from dfserve.errors import ConfigError, DatapointError


@pytest.mark.parametrize("num", [0, 1, 3])
def test_finite_repetition_is_tensorpacks(tensorpack: ModuleType, num: int) -> None:
    ours = RepeatedData(DataFromList([[1], [2]], shuffle=False), num)
    theirs = tensorpack.RepeatedData(tensorpack.DataFromList([[1], [2]], shuffle=False), num)
    assert list(ours) == list(theirs) == [[1], [2]] * num
    assert len(ours) == len(theirs) == 2 * num


@pytest.mark.parametrize("num", [-1, -2])
def test_a_negative_number_repeats_for_ever_and_has_no_length(num: int) -> None:
    ds = RepeatedData(DataFromList([[1], [2]], shuffle=False), num)
    assert list(islice(ds, 5)) == [[1], [2], [1], [2], [1]]
    with pytest.raises(NotImplementedError):
        len(ds)


def test_every_pass_is_shuffled_anew() -> None:
    ds = RepeatedData(DataFromList([[n] for n in range(40)]), 2)
    ds.reset_state()
    datapoints = list(ds)
    assert datapoints[:40] != datapoints[40:]
    assert sorted(datapoints[:40]) == sorted(datapoints[40:])


def test_repeating_nothing_for_ever_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(DatapointError, match="yields nothing"):
        list(RepeatedData(DataFromList([], shuffle=False), -1))
    with pytest.raises(DatapointError, match="yields nothing"):
        list(RepeatedData(MapData(DataFromList([[1]], shuffle=False), lambda dp: None), -1))


def test_repeating_a_spent_generator_for_ever_is_an_error_and_not_a_hang() -> None:
    ds = RepeatedData(DataFromGenerator([n] for n in range(2)), -1)
    datapoints = iter(ds)
    assert [next(datapoints), next(datapoints)] == [[0], [1]]
    with pytest.raises(DatapointError, match="runs once"):
        next(datapoints)


@pytest.mark.parametrize("num", [1, 3])
def test_datapoints_are_repeated_as_tensorpacks(tensorpack: ModuleType, num: int) -> None:
    datapoints = [[1], {"a": 2}]
    ours = RepeatedDataPoint(DataFromList(datapoints, shuffle=False), num)
    theirs = tensorpack.RepeatedDataPoint(tensorpack.DataFromList(datapoints, shuffle=False), num)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs) == 2 * num


def test_a_datapoint_comes_at_least_once() -> None:
    with pytest.raises(ConfigError, match="num is 0"):
        RepeatedDataPoint([[1]], 0)


@pytest.mark.parametrize("repeated", [RepeatedData, RepeatedDataPoint])
def test_the_old_keyword_works_and_warns(repeated: Any) -> None:
    with pytest.warns(DeprecationWarning, match="nr is the old name of num"):
        ds = repeated([[1], [2]], nr=2)
    assert len(ds) == 4
