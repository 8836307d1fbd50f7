"""Sources: lists, iterables, generators, fake data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList, FakeData, RepeatedData
from dfserve.dataflow.sources import DataFromIterable
from dfserve.errors import ConfigError, DatapointError, UnknownLengthError


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


def test_an_iterable_is_iterated_anew_for_every_pass_and_has_its_length(tensorpack: ModuleType) -> None:
    for iterable in ([[1], [2]], {(3,)}, range(3)):
        ours, theirs = DataFromIterable(iterable), tensorpack.DataFromIterable(iterable)
        assert list(ours) == list(ours) == list(theirs)
        assert len(ours) == len(theirs)


def test_an_iterable_that_can_be_called_is_iterated_and_not_called() -> None:
    class Loader:
        def __call__(self) -> Any:
            raise AssertionError("called")

        def __iter__(self) -> Iterator[Any]:
            return iter([[1]])

    assert list(DataFromIterable(Loader())) == [[1]]
    with pytest.raises(UnknownLengthError):
        len(DataFromIterable(Loader()))


def test_repeating_a_spent_iterator_is_an_error_and_not_a_hang() -> None:
    ds = RepeatedData(DataFromIterable(iter([[1], [2]])), -1)
    with pytest.raises(DatapointError, match="pass 2 over a list_iterator"):
        list(ds)


@pytest.mark.parametrize("source", [DataFromIterable, DataFromGenerator])
def test_what_cannot_be_iterated_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError, match="type int is no iterable"):
        source(5)


@pytest.mark.parametrize("ds", [DataFromList([[0], [1], [2]]), FakeData([[2]], size=3)])
def test_an_index_counts_from_either_end_and_ends_with_an_index_error(ds: Any) -> None:
    def value(index: int) -> float:
        return float(np.ravel(ds[index][0])[0])

    assert value(-1) == value(2) != value(0) == value(-3)
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 datapoints"):
            ds[index]


def test_an_item_of_fake_data_depends_on_its_index_alone() -> None:
    ds, again = (FakeData([[4], [2, 2]], size=9, dtype=["float32", "uint8"], domain=[(0, 1), (0, 255)]) for _ in "ab")
    items = [ds[i] for i in range(9)]
    again.reset_state()
    list(again)
    for i in reversed(range(9)):
        assert all(np.array_equal(a, b) for a, b in zip(again[i], items[i], strict=True))
    assert len({item[0].tobytes() for item in items}) == 9
    assert [(a.shape, str(a.dtype)) for a in items[0]] == [((4,), "float32"), ((2, 2), "uint8")]


def test_items_of_fake_data_are_the_same_in_every_process() -> None:
    code = "from dfserve.dataflow import FakeData; print(FakeData([[3]], size=9)[7][0].tolist())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(FakeData([[3]], size=9)[7][0].tolist())


def test_an_item_of_fake_data_leaves_the_pass_as_it_was() -> None:
    ds = FakeData([[2]], size=2)
    passes = []
    for look in (False, True):
        ds.rng = np.random.RandomState(5)
        datapoints = iter(ds)
        first = next(datapoints)
        if look:
            ds[1]
        passes.append([first[0].tolist(), next(datapoints)[0].tolist()])
    assert passes[0] == passes[1]


def test_items_of_fake_data_that_is_not_random_are_all_alike() -> None:
    ds = FakeData([[4]], size=3, random=False)
    assert np.array_equal(ds[0][0], ds[2][0])
