"""Sources: lists, generators, fake data."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList, FakeData
from dfserve.dataflow.base import UnknownLengthError
from dfserve.dataflow.failures import DatapointError
from dfserve.errors import ConfigError


def test_a_list_is_shuffled_anew_for_every_pass() -> None:
    ds = DataFromList([[n] for n in range(50)])
    ds.reset_state()
    first, second = list(ds), list(ds)
    assert first != second
    assert sorted(first) == sorted(second) == [[n] for n in range(50)]


def test_a_list_without_shuffle_keeps_its_order_and_needs_no_reset() -> None:
    ds = DataFromList([{"a": 1}, {"a": 2}], shuffle=False)
    assert list(ds) == [{"a": 1}, {"a": 2}]
    assert (len(ds), ds[1]) == (2, {"a": 2})


def test_a_shuffled_list_has_tensorpacks_order_for_the_same_generator(tensorpack: ModuleType) -> None:
    datapoints = [[n] for n in range(100)]
    ours, theirs = DataFromList(datapoints), tensorpack.DataFromList(datapoints)
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(7)
    assert list(ours) == list(theirs)


def test_a_generator_function_is_called_for_every_pass() -> None:
    def numbers() -> Iterator[Any]:
        yield from ([1], [2])

    ds = DataFromGenerator(numbers)
    assert list(ds) == list(ds) == [[1], [2]]
    with pytest.raises(UnknownLengthError):
        len(ds)


def test_an_iterable_with_a_length_gives_it() -> None:
    ds = DataFromGenerator([[1], [2]])
    assert (list(ds), len(ds)) == ([[1], [2]], 2)


def test_the_second_pass_over_a_spent_generator_is_an_error_that_names_the_remedy() -> None:
    ds = DataFromGenerator([n] for n in range(3))
    assert list(ds) == [[0], [1], [2]]
    with pytest.raises(DatapointError, match="runs once and is spent"):
        list(ds)


def test_a_generator_left_in_mid_pass_goes_on_where_it_was() -> None:
    ds = DataFromGenerator([n] for n in range(3))
    assert next(iter(ds)) == [0]
    assert list(ds) == [[1], [2]]


def test_an_empty_list_is_empty_on_every_pass_without_an_error() -> None:
    ds = DataFromGenerator([])
    assert list(ds) == list(ds) == []


@pytest.mark.parametrize("random", [True, False])
def test_fake_data_has_tensorpacks_shapes_dtypes_and_ranges(tensorpack: ModuleType, random: bool) -> None:
    arguments: dict[str, Any] = {
        "shapes": [[4, 5, 3], (6,)],
        "size": 3,
        "random": random,
        "dtype": ["uint8", "float32"],
        "domain": [(0, 255), (-2, 2)],
    }
    ours, theirs = FakeData(**arguments), tensorpack.FakeData(**arguments)
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(1)
    assert len(ours) == len(theirs) == 3
    for mine, yours in zip(list(ours), list(theirs), strict=True):
        assert [a.dtype for a in mine] == [np.dtype("uint8"), np.dtype("float32")]
        assert all(np.allclose(a, b) and a.dtype == b.dtype for a, b in zip(mine, yours, strict=True))


def test_fake_data_that_is_not_random_repeats_one_datapoint() -> None:
    ds = FakeData([[2, 2]], size=3, random=False)
    ds.reset_state()
    first, second, third = list(ds)
    assert first is not second
    assert first[0] is second[0] is third[0]


def test_random_fake_data_differs_from_datapoint_to_datapoint() -> None:
    ds = FakeData([[8]], size=2)
    ds.reset_state()
    (first,), (second,) = ds
    assert not np.array_equal(first, second)


def test_fake_data_of_no_dimensions_is_a_0d_array() -> None:
    ds = FakeData([()], size=1, dtype="int64", domain=(3, 4))
    ds.reset_state()
    ((scalar,),) = ds
    assert (scalar.shape, scalar.dtype, int(scalar)) == ((), np.dtype("int64"), 3)


def test_fake_data_with_the_wrong_number_of_dtypes_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 shapes but 1 dtypes"):
        FakeData([[1], [2]], dtype=["uint8"])
    with pytest.raises(ConfigError, match="2 shapes but 3 domains"):
        FakeData([[1], [2]], domain=[(0, 1)] * 3)
