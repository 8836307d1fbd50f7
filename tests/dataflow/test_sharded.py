"""Sharded sources: keys, shards, their order, and what becomes of a shard that fails or is left."""

from __future__ import annotations

import pickle
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow.failures import key_of
from dfserve.dataflow.sharded import DataFromShards, ShardedDataFlow
from dfserve.errors import ConfigError, DatapointError, DfserveError, UnknownLengthError

KEYS = [f"shard-{n:02}" for n in range(20)]


def three(key: str) -> Iterator[Any]:
    for n in range(3):
        yield [key, n]


def test_shards_are_read_one_after_the_other_in_the_order_of_their_keys() -> None:
    ds = DataFromShards(KEYS, three)
    assert list(ds) == list(ds) == [[key, n] for key in KEYS for n in range(3)]


def test_a_shuffled_pass_mixes_the_shards_and_leaves_each_as_it_is() -> None:
    ds = DataFromShards(KEYS, three, shuffle=True)
    ds.reset_state()
    first, second = list(ds), list(ds)
    assert first != second
    assert sorted(first) == sorted(second) == [[key, n] for key in KEYS for n in range(3)]
    assert [n for _, n in first] == [0, 1, 2] * len(KEYS)
    assert ds.shard_keys() == KEYS


def test_a_shuffled_pass_without_a_reset_says_what_to_call() -> None:
    with pytest.raises(DfserveError, match=r"call reset_state\(\)"):
        list(DataFromShards(KEYS, three, shuffle=True))


def test_a_shard_can_be_opened_alone_and_again() -> None:
    ds = DataFromShards(KEYS, three)
    assert list(ds.open_shard("shard-07")) == list(ds.open_shard("shard-07")) == [["shard-07", n] for n in range(3)]


def test_the_list_of_keys_is_the_callers_to_change() -> None:
    ds = DataFromShards(KEYS, three)
    ds.shard_keys().clear()
    assert ds.shard_keys() == KEYS


def test_its_length_is_unknown() -> None:
    with pytest.raises(UnknownLengthError):
        len(DataFromShards(KEYS, three))


def test_items_become_datapoints_as_those_of_a_data_set() -> None:
    ds = DataFromShards(["a"], lambda key: [5, UserDict(x=1), {"y": 2}])
    assert list(ds) == [[5], {"x": 1}, {"y": 2}]
    with pytest.raises(DatapointError, match="item 1 of the pipeline is None"):
        list(DataFromShards(["a"], lambda key: [5, None]))


def test_a_shard_that_fails_is_named() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(DataFromShards(["a", "b"], lambda key: [[1]] if key == "a" else [[Path("/no/such/file").read_bytes()]]))
    assert key_of(caught.value) == "b"


def test_a_function_that_returns_nothing_to_iterate_is_an_error_that_says_so() -> None:
    nothing: Any = lambda key: None  # noqa: E731
    with pytest.raises(ConfigError, match=r"open_shard\('a'\) returned an object of type NoneType"):
        list(DataFromShards(["a"], nothing))


def test_a_pass_that_is_given_up_closes_its_shard() -> None:
    closed = []

    class Files(ShardedDataFlow):
        def shard_keys(self) -> list[str]:
            return ["a"]

        def open_shard(self, key: str) -> Iterator[Any]:
            try:
                yield from ([1], [2])
            finally:
                closed.append(key)

    datapoints: Any = iter(Files(shuffle=False))
    assert next(datapoints) == [1]
    datapoints.close()
    assert closed == ["a"]


@pytest.mark.parametrize(
    ("keys", "text"), [([], "no shards"), (["a", "b", "a"], "'a' is among the 3 keys"), ("abc", "str"), ([1], "str")]
)
def test_keys_that_name_no_shards_are_refused(keys: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        DataFromShards(keys, three)


def test_it_pickles() -> None:
    ds = DataFromShards(KEYS, three, shuffle=True)
    ds.reset_state()
    copy = pickle.loads(pickle.dumps(ds))
    assert sorted(copy) == sorted(ds)
