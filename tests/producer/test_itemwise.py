"""Owns the tests of which pipelines can be run item by item, and of what is said of the others."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dfserve import ConfigError
from dfserve.dataflow import (
    BatchData,
    BatchDataByShape,
    CacheData,
    ConcatData,
    DataFlow,
    DataFromGenerator,
    DataFromIterable,
    DataFromList,
    DataFromQueue,
    DataFromShards,
    FakeData,
    FixedSizeData,
    JoinData,
    LocallyShuffleData,
    MapData,
    MultiProcessMapAndBatchData,
    MultiProcessRunner,
    MultiProcessRunnerZMQ,
    MultiThreadMapData,
    MultiThreadRunner,
    PrintData,
    ProxyDataFlow,
    RandomChooseData,
    RandomMixData,
    RepeatedData,
    TestDataSpeed,
)
from dfserve.dataflow.dataset import NetworkImages
from dfserve.producer.itemwise import Batch, analysed, name_of_source


def items() -> DataFromList:
    return DataFromList([[number] for number in range(10)], shuffle=False)


class NoLength:
    """A data set that is not complete."""

    def __getitem__(self, index: int) -> Any:
        return [index]


class DataLoader:
    """As torch's, which batches and shuffles."""

    def __iter__(self) -> Iterator[Any]:
        return iter([])


class IterableDataset:
    """As torch's, which inherits a method that only raises."""

    def __iter__(self) -> Iterator[Any]:
        return iter([])

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "RepeatedData": (lambda: RepeatedData(items(), -1), "RepeatedData cannot .* an epoch is one pass"),
    "FixedSizeData": (lambda: FixedSizeData(items(), 3), "FixedSizeData cannot .* take a part of the source's list"),
    "runner": (lambda: MultiProcessRunner(items(), 2, 2), "MultiProcessRunner cannot .*dfserve produce --workers N"),
    "runner zmq": (lambda: MultiProcessRunnerZMQ(items(), 2), "MultiProcessRunnerZMQ cannot .* --workers N"),
    "threads": (lambda: MultiThreadRunner(items, 2, 2), "MultiThreadRunner cannot .* --workers N"),
    "shuffle": (lambda: LocallyShuffleData(items(), 5), "LocallyShuffleData cannot .* plan shuffles"),
    "cache": (lambda: CacheData(items()), "CacheData cannot .* cache in the source"),
    "by shape": (lambda: BatchDataByShape(items(), 2, 0), "BatchDataByShape cannot .* several workers"),
    "mix": (lambda: RandomMixData([items(), items()]), "RandomMixData cannot .* plan shuffles"),
    "choose": (lambda: RandomChooseData([items(), items()]), "RandomChooseData cannot .* one source with len"),
    "concat": (lambda: ConcatData([items(), items()]), "ConcatData cannot .* one source with len"),
    "join": (lambda: JoinData([items(), items()]), "JoinData cannot .* one source with len"),
    "queue": (lambda: DataFromQueue(queue.Queue()), "DataFromQueue cannot .* a queue has no items"),
    "generator": (lambda: DataFromGenerator(lambda: iter([])), "DataFromGenerator of a function .* a generator has no"),
    "iterable": (lambda: DataFromIterable({1, 2}), "DataFromIterable of a set cannot .* use DataFromList"),
    "an iterable itself": (lambda: {1, 2}, "DataFromIterable of a set cannot .* use DataFromList"),
    "no length": (lambda: NoLength(), "of a NoLength cannot .* it has __getitem__, and no __len__: add it"),
    "iterated all the same": (lambda: DataFromIterable([[1]]), "DataFromIterable of a list cannot .* use DataFromList"),
    "loader": (lambda: DataLoader(), "of a DataLoader cannot .* return its .dataset: batch_size"),
    "torch's iterable": (lambda: IterableDataset(), "of a IterableDataset cannot .* as a stream"),
    "batch within": (lambda: MapData(BatchData(items(), 2), list), "BatchData is not the last operator.* Move it"),
    "batch and print": (lambda: PrintData(BatchData(items(), 2)), "BatchData is not the last operator"),
    "batch of batches": (lambda: BatchData(BatchData(items(), 2), 2), "BatchData is not the last operator"),
    "map and batch within": (
        lambda: MapData(MultiProcessMapAndBatchData(items(), 1, list, 2), list),
        "MultiProcessMapAndBatchData is not the last operator",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_cannot_be_run_item_by_item_is_refused_by_name_with_what_to_change(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        analysed(make())
    if "batch" not in name and name != "by shape":
        with pytest.raises(ConfigError, match=message):
            analysed(MapData(make(), list))


def test_a_subclass_of_what_is_refused_is_refused_too() -> None:
    class Mine(LocallyShuffleData):
        """A buffer."""

    with pytest.raises(ConfigError, match="Mine cannot be served in epochs mode; remove it: the consumer's plan"):
        analysed(Mine(items(), 5))


def test_a_source_without_items_is_told_what_it_needs() -> None:
    class Passes(DataFlow):
        def __iter__(self) -> Iterator[Any]:
            yield [1]

    with pytest.raises(ConfigError, match=r"Passes is a source without items: .* __getitem__\(index\), or shard_keys"):
        analysed(MapData(Passes(), list))


def test_a_source_whose_pass_is_another_than_its_items_has_none() -> None:
    class Twice(DataFromList):
        def __iter__(self) -> Iterator[Any]:
            for datapoint in self.lst:
                yield datapoint
                yield datapoint

    with pytest.raises(ConfigError, match="Twice is a source without items"):
        analysed(Twice([[1]]))


def test_a_source_that_does_not_know_its_length_is_told_so() -> None:
    class NoLength(DataFlow):
        def __getitem__(self, index: int) -> Any:
            return [index]

        def __iter__(self) -> Iterator[Any]:
            yield [1]

    with pytest.raises(ConfigError, match="NoLength has items, but does not know its length"):
        analysed(NoLength())


def test_operators_of_tensorpack_are_refused_with_the_import_to_change() -> None:
    class TheirBase:
        """Stands for a class of tensorpack's, which a test should not have to import."""

        __module__ = "tensorpack.dataflow.common"

        def __init__(self, ds: Any) -> None:
            self.ds = ds

        def reset_state(self) -> None:
            self.ds.reset_state()

        def __iter__(self) -> Iterator[Any]:
            return iter(self.ds)

    class Theirs(TheirBase):
        """Derives from it."""

    with pytest.raises(ConfigError, match=r"Theirs is tensorpack's.* from dfserve\.dataflow"):
        analysed(Theirs(items()))
    with pytest.raises(ConfigError, match="Theirs is tensorpack's"):
        analysed(MapData(Theirs(items()), list))


def test_a_batch_of_somebody_elses_is_refused_with_the_import_to_change() -> None:
    theirs = type("BatchData", (ProxyDataFlow,), {"__iter__": lambda self: iter(self.ds)})
    with pytest.raises(ConfigError, match=r"BatchData is not dfserve's.*Import BatchData from dfserve\.dataflow"):
        analysed(theirs(items()))


def test_a_batch_of_ones_own_is_refused() -> None:
    class Mine(BatchData):
        @staticmethod
        def aggregate_batch(datapoints: Any, use_list: bool = False) -> Any:
            return list(datapoints)

    with pytest.raises(ConfigError, match=r"Mine batches in its own way.*collate="):
        analysed(Mine(items(), 2))


def test_the_walk_ends_at_the_outermost_that_has_items() -> None:
    class Part(ProxyDataFlow):
        """Every other item."""

        def __len__(self) -> int:
            return len(self.ds) // 2

        def __getitem__(self, index: int) -> Any:
            return self.ds[2 * index]

    pipeline = analysed(BatchData(MapData(Part(items()), list), 2, remainder=True))
    assert [type(operator).__name__ for operator in pipeline.operators] == ["MapData"]
    assert name_of_source(pipeline.source) == "Part"
    assert pipeline.batch == Batch(2, remainder=True, use_list=False)


def test_what_stands_for_a_dataflow_is_a_source_under_its_own_name() -> None:
    assert name_of_source(analysed([[1], [2]]).source) == "list"
    assert name_of_source(analysed(MapData([[1]], list)).source) == "list"
    assert name_of_source(analysed(FakeData([(2,)])).source) == "FakeData"


def test_a_sharded_source_is_one() -> None:
    assert analysed(MapData(DataFromShards(["a"], list), list)).sharded
    assert not analysed(items()).sharded


def test_a_measurement_is_stepped_over_and_so_are_threads_that_fetch() -> None:
    pipeline = analysed(BatchData(TestDataSpeed(items()), 2))
    assert not pipeline.operators
    images = NetworkImages([["http://127.0.0.1/a.png", 0]])
    pipeline = analysed(MapData(images.parallel(4), list))
    assert pipeline.source is images
    assert len(pipeline.operators) == 1


def test_parallel_maps_and_a_sources_shuffle_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dfserve.producer"):
        analysed(MultiThreadMapData(DataFromList([[1]]), 2, list))
    assert "MultiThreadMapData: in epochs mode its function runs in the worker itself" in caplog.text
    assert "DataFromList: its shuffle=True is not used in epochs mode" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "dfserve.producer"):
        analysed(MapData(items(), list))
    assert not caplog.records
