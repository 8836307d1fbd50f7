"""Maps: what they change, what they drop, and which item an exception was about."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dfserve.dataflow import DataFromList, MapData, MapDataComponent
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, TooManyErrors


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


def test_a_function_that_returns_none_drops_the_datapoint() -> None:
    ds = MapData(listed([1], [2], [3]), lambda dp: None if dp[0] == 2 else [dp[0] * 10])
    assert list(ds) == [[10], [30]]
    assert len(ds) == 3


def test_replacing_a_component_does_not_change_the_source() -> None:
    def double(dp: Any) -> Any:
        dp["x"] *= 2
        return dp

    source = [{"x": 1}, {"x": 2}]
    assert list(MapData(listed(*source), double)) == [{"x": 2}, {"x": 4}]
    assert source == [{"x": 1}, {"x": 2}]


def test_one_component_is_mapped_by_position_or_key() -> None:
    assert list(MapDataComponent(listed([1, 5]), str)) == [["1", 5]]
    assert list(MapDataComponent(listed([1, 5]), str, 1)) == [[1, "5"]]
    assert list(MapDataComponent(listed({"a": 1, "b": 5}), str, "b")) == [{"a": 1, "b": "5"}]


def test_a_tuple_becomes_a_list_when_a_component_changes_and_the_source_does_not() -> None:
    source = [[0, "a"], (1, "b")]
    assert list(MapDataComponent(listed(*source), lambda n: n + 10)) == [[10, "a"], [11, "b"]]
    assert source == [[0, "a"], (1, "b")]


def test_a_component_mapped_to_none_drops_the_datapoint_and_to_zero_does_not() -> None:
    assert list(MapDataComponent(listed([1], [2]), {2: 0}.get)) == [[0]]


@pytest.mark.parametrize("index", [0, 1])
def test_maps_do_what_tensorpacks_do(tensorpack: ModuleType, index: int) -> None:
    datapoints = [[n, n * n] for n in range(20)]

    def odd(n: int) -> int | None:
        return n if n % 2 else None

    theirs = tensorpack.MapDataComponent(tensorpack.DataFromList(datapoints, shuffle=False), odd, index)
    ours = MapDataComponent(listed(*datapoints), odd, index)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(
    ("datapoint", "key"),
    [
        ([7, "cats/3.JPEG"], "cats/3.JPEG"),
        (("cats/3.JPEG", 7), "cats/3.JPEG"),
        ({"label": 7, "file": "cats/3.JPEG"}, "cats/3.JPEG"),
        ([7, 8], "1"),
    ],
)
def test_an_exception_of_the_function_carries_the_items_name_or_else_its_position(datapoint: Any, key: str) -> None:
    def fail(dp: Any) -> Any:
        if dp == datapoint:
            raise KeyError("no such thing")
        return dp

    with pytest.raises(KeyError, match="no such thing") as caught:
        list(MapData(listed([0, 0], datapoint), fail))
    assert key_of(caught.value) == key


def test_an_exception_keeps_the_name_the_innermost_map_knew() -> None:
    def fail(_: Any) -> Any:
        raise ValueError("damaged")

    inner = MapDataComponent(listed(["a.jpg", 1]), fail, 1)
    with pytest.raises(ValueError, match="damaged") as caught:
        list(MapData(MapData(inner, lambda dp: dp), lambda dp: dp))
    assert key_of(caught.value) == "a.jpg"


def test_a_missing_component_is_an_error_with_the_items_name() -> None:
    with pytest.raises(IndexError) as caught:
        list(MapDataComponent(listed(["a.jpg", 1]), str, 5))
    assert key_of(caught.value) == "a.jpg"


def test_a_function_that_raises_stop_iteration_does_not_end_the_pass_silently() -> None:
    def stop(_: Any) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError) as caught:
        list(MapData(listed(["a.jpg", 1]), stop))
    assert key_of(caught.value) == "a.jpg"


def odd_only(dp: Any) -> Any:
    if dp[0] % 2 == 0:
        raise ValueError(f"{dp[0]} is even")
    return dp


def test_a_datapoint_that_fails_can_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    ds = MapData(listed([1], [2], [3], [4]), odd_only, on_error=SkipErrors(total=2, rate=None))
    assert list(ds) == [[1], [3]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "MapData skipped item 1 (1 so far): ValueError: 2 is even" in caplog.text


def test_limits_hold_over_all_passes() -> None:
    ds = MapData(listed([1], [2]), odd_only, on_error=SkipErrors(total=1))
    assert list(ds) == [[1]]
    with pytest.raises(TooManyErrors, match="more than total=1") as caught:
        list(ds)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_a_function_drops_is_no_error() -> None:
    ds = MapData(listed(*([n] for n in range(300))), lambda dp: None, on_error=SkipErrors(total=0, rate=0.0))
    assert list(ds) == []


def test_one_component_that_fails_is_skipped_with_its_datapoint(tmp_path: Path) -> None:
    quarantine = tmp_path / "bad.jsonl"
    ds = MapDataComponent(
        listed(["a.jpg", "1"], ["b.jpg", "x"]), int, index=1, on_error=SkipErrors(quarantine=quarantine)
    )
    assert list(ds) == [["a.jpg", 1]]
    (line,) = quarantine.read_text().splitlines()
    assert (json.loads(line)["key"], json.loads(line)["operator"]) == ("b.jpg", "MapDataComponent")


def test_an_error_of_the_source_is_not_the_maps_to_skip() -> None:
    inner = MapData(listed([1], [2]), odd_only)
    with pytest.raises(ValueError, match="2 is even"):
        list(MapData(inner, lambda dp: dp, on_error="skip"))


def test_a_function_that_raises_stop_iteration_is_skipped_like_any_other() -> None:
    ds = MapData(listed([1], [3]), lambda dp: next(iter([dp] if dp == [1] else [])), on_error="skip")
    assert list(ds) == [[1]]


@pytest.mark.parametrize("on_error", ["ignore", None, True])
def test_a_policy_that_there_is_not_is_refused(on_error: Any) -> None:
    with pytest.raises(ConfigError, match="it is 'raise', 'skip', or SkipErrors"):
        MapData(listed([1]), odd_only, on_error=on_error)
