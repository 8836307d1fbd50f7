"""What may stand for a pipeline: DataFlows, map-style data sets, iterables."""

from __future__ import annotations

import pickle
from collections import UserDict
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from dfserve.dataflow import BatchData, DataFromList, MapData, ProxyDataFlow, RepeatedData
from dfserve.dataflow.adapt import as_dataflow, as_source
from dfserve.dataflow.failures import key_of
from dfserve.errors import ConfigError, DatapointError, FactoryError


class Squares:
    """A map-style data set, as torch knows it."""

    def __init__(self, length: int = 4) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        # No IndexError beyond the end: only the length says where it is.
        return index, index * index


class Forever:
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield [1]


def test_a_dataflow_stays_what_it_is() -> None:
    ds = DataFromList([[1]])
    assert as_dataflow(ds) is ds


def test_a_dataflow_of_tensorpacks_is_reset_and_passed_on(tensorpack: ModuleType) -> None:
    ds = as_dataflow(tensorpack.DataFromList([[n] for n in range(9)], shuffle=True))
    ds.reset_state()
    assert sorted(ds) == [[n] for n in range(9)]
    assert len(ds) == 9


def test_a_tensorpack_dataflow_without_a_length_has_none_here(tensorpack: ModuleType) -> None:
    ds = as_dataflow(tensorpack.DataFromGenerator(lambda: iter([[1], [2]])))
    ds.reset_state()
    assert list(ds) == [[1], [2]]
    with pytest.raises(NotImplementedError):
        len(ds)


def test_a_map_style_data_set_yields_its_items_in_order_and_tuples_stay() -> None:
    ds = as_dataflow(Squares())
    assert list(ds) == list(ds) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert len(ds) == 4


def test_a_failing_item_carries_its_index() -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> Any:
            return 1 / (2 - index)

    with pytest.raises(ZeroDivisionError) as caught:
        list(as_dataflow(Broken()))
    assert key_of(caught.value) == "2"


def test_a_list_is_a_pipeline_of_its_entries() -> None:
    assert list(as_dataflow([[1, 2], {"a": 3}])) == [[1, 2], {"a": 3}]


def test_an_iterable_is_iterated_anew_for_every_pass() -> None:
    ds = as_dataflow({(1, 2)})
    assert list(ds) == list(ds) == [(1, 2)]
    assert len(ds) == 1
    assert next(iter(as_dataflow(Forever()))) == [1]


def test_an_iterable_that_can_be_called_is_iterated() -> None:
    class Loader:
        def __call__(self) -> Any:
            raise AssertionError("called")

        def __iter__(self) -> Iterator[Any]:
            return iter([[1]])

    assert list(as_dataflow(Loader())) == [[1]]


def test_the_second_pass_over_a_generator_is_an_error_that_names_the_remedy() -> None:
    ds = as_dataflow([n] for n in range(2))
    assert list(ds) == [[0], [1]]
    with pytest.raises(DatapointError, match="Return something that iter"):
        list(ds)


def test_a_torch_iterable_dataset_is_iterated_although_it_inherits_getitem() -> None:
    class Dataset:
        def __getitem__(self, index: int) -> Any:
            raise NotImplementedError

    class IterableDataset(Dataset):
        """Named as torch's, which is how it is recognised."""

    class Mine(IterableDataset):
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[Any]:
            return iter([[1], [2]])

    ds = as_dataflow(Mine())
    assert list(ds) == [[1], [2]]
    assert len(ds) == 2


def test_a_bare_item_is_a_datapoint_of_one_component() -> None:
    images = np.arange(6).reshape(3, 2)
    assert [dp[0].tolist() for dp in as_dataflow(images)] == [[0, 1], [2, 3], [4, 5]]
    assert list(as_dataflow([1, "a"])) == [[1], ["a"]]


def test_a_named_tuple_and_other_mappings_are_datapoints() -> None:
    class Sample(NamedTuple):
        image: int
        label: int

    sample, mapping = as_dataflow([Sample(1, 2), UserDict({"a": 1})])
    assert sample == Sample(1, 2)
    assert type(mapping) is dict
    assert mapping == {"a": 1}


def test_an_item_of_none_is_an_error() -> None:
    for pipeline in ([[1], None], iter([[1], None])):
        with pytest.raises(DatapointError, match="item 1 of the pipeline is None"):
            list(as_dataflow(pipeline))


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "is a 'return' missing"),
        (3, "an object of type int is no pipeline"),
        ("folder", "an object of type str is no pipeline"),
        ({"train": [[1]]}, r"keys \['train'\] \(one of its values is meant\)"),
        (Squares, "the class Squares"),
        (lambda: [[1]], "call it"),
    ],
)
def test_anything_else_is_refused_with_what_to_return(returned: Any, text: str) -> None:
    with pytest.raises(FactoryError, match=text) as caught:
        as_dataflow(returned)
    assert "return a DataFlow" in str(caught.value)


class Shards:
    """What a sharded source needs, and no more."""

    def shard_keys(self) -> list[str]:
        return ["a", "b"]

    def open_shard(self, key: str) -> Iterator[Any]:
        yield from ([key, 0], [key, 1])


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_index_outside_a_data_set_is_an_error_even_where_the_data_set_has_no_end(index: int) -> None:
    ds: Any = as_dataflow(Squares())
    with pytest.raises(IndexError, match=f"index {index} of a source with 4"):
        ds[index]


def test_an_item_can_be_asked_for_from_either_end() -> None:
    ds: Any = as_dataflow(Squares())
    assert (ds[1], ds[-1], ds[np.int64(-4)]) == ((1, 1), (3, 9), (0, 0))


def test_a_data_set_whose_item_raises_stop_iteration_does_not_end_the_pass_silently() -> None:
    class Short(Squares):
        def __getitem__(self, index: int) -> Any:
            raise StopIteration

    with pytest.raises(RuntimeError):
        list(as_dataflow(Short()))


def test_a_sharded_source_is_read_shard_by_shard() -> None:
    ds: Any = as_dataflow(Shards())
    assert list(ds) == [["a", 0], ["a", 1], ["b", 0], ["b", 1]]
    assert ds.shard_keys() == ["a", "b"]
    assert list(ds.open_shard("b")) == [["b", 0], ["b", 1]]


def test_an_operator_takes_a_data_set_as_it_is() -> None:
    ds = MapData(Squares(), lambda dp: [dp[1]])
    ds.reset_state()
    assert (list(ds), len(ds)) == ([[0], [1], [4], [9]], 4)
    assert [list(map(int, batch[1])) for batch in BatchData(Squares(), 2)] == [[0, 1], [4, 9]]


def test_an_operator_takes_a_list_an_array_and_an_iterable() -> None:
    assert list(RepeatedData([[1], [2]], 2)) == [[1], [2], [1], [2]]
    assert [dp[0].tolist() for dp in ProxyDataFlow(np.eye(2))] == [[1, 0], [0, 1]]
    assert list(RepeatedData({(1, 2)}, 2)) == [(1, 2), (1, 2)]
    assert list(MapData(([n] for n in range(2)), lambda dp: dp)) == [[0], [1]]


def test_what_can_be_reset_stays_the_same_object(tensorpack: ModuleType) -> None:
    class Reset:
        def reset_state(self) -> None: ...

    for source in (DataFromList([[1]]), tensorpack.DataFromList([[1]]), Reset()):
        assert as_source(source) is source
        assert ProxyDataFlow(source).ds is source


@pytest.mark.parametrize("given", [None, 3, "folder", {"train": [[1]]}, DataFromList, lambda: [[1]]])
def test_an_operator_refuses_what_yields_no_datapoints(given: Any) -> None:
    with pytest.raises(ConfigError, match="is no source of datapoints; give a DataFlow"):
        BatchData(given, 1)


@pytest.mark.parametrize("source", [Squares(), [[1, 1]], Shards()])
def test_what_was_adapted_pickles(source: Any) -> None:
    ds = as_dataflow(source)
    assert list(pickle.loads(pickle.dumps(ds))) == list(ds)


def test_torch_data_sets_are_sources_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch.utils.data")

    class Count(data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[Any]:
            return iter(torch.arange(3))

    indexed = data.TensorDataset(torch.arange(4.0), torch.arange(4))
    images, labels = next(iter(BatchData(indexed, 4)))
    assert (images.tolist(), labels.tolist()) == ([0.0, 1.0, 2.0, 3.0], [0, 1, 2, 3])
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert [int(dp[0]) for dp in RepeatedData(Count(), 2)] == [0, 1, 2, 0, 1, 2]
    loader = data.DataLoader(indexed, batch_size=3)
    assert [len(dp[0]) for dp in ProxyDataFlow(loader)] == [3, 1]
    # And the other way round: what can be indexed here is a Dataset there.
    assert [len(batch[0]) for batch in data.DataLoader(DataFromList([[1], [2], [3]]), batch_size=2)] == [2, 1]
