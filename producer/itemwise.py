"""Owns which pipelines can be run item by item: the walk to the source, and what is refused with what to do instead."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dfserve.dataflow.adapt import as_dataflow
from dfserve.dataflow.base import known_length
from dfserve.dataflow.batch import BatchData
from dfserve.errors import ConfigError

log = logging.getLogger("dfserve.producer")

_IN_EPOCHS = "in epochs mode a worker makes the outputs of each item for itself"
_RUNNER = "remove it: `dfserve produce --workers N` runs the pipeline in N processes"
_REPEATS = "remove it: an epoch is one pass over the items, and the consumer asks for as many as it wants"
_SHUFFLES = (
    "remove it: the consumer's plan shuffles the items (shuffle=True); of shards it shuffles these, and what lies in"
    " one keeps its order"
)
_FILE = "save it with LMDBSerializer or NumpySerializer, and load that, whose datapoints can be had by their number"
_COMBINES = "give the parts to one source with len() and ds[index], or serve each as a pipeline of its own"

# By the name of the class, or of one that it derives from: tensorpack's own are refused by it too.
_REMEDIES = {
    "RepeatedData": _REPEATS,
    "FixedSizeData": "remove it: an epoch has all items; for fewer, take a part of the source's list",
    "MultiProcessRunner": _RUNNER,
    "MultiProcessRunnerZMQ": _RUNNER,
    "MultiThreadRunner": _RUNNER,
    "LocallyShuffleData": _SHUFFLES,
    "CacheData": "remove it: a worker gets other items in every epoch; cache in the source's __getitem__",
    "BatchDataByShape": "remove it: a batch is made of what several workers yield; group by shape where they arrive",
    "RandomMixData": f"{_COMBINES}; {_SHUFFLES.removeprefix('remove it: ')}",
    "RandomChooseData": _COMBINES,
    "ConcatData": _COMBINES,
    "JoinData": _COMBINES,
    "DataFromQueue": f"a queue has no items that can be asked for again: {_FILE}",
    "DataFromGenerator": f"a generator has no items that can be asked for by their number: {_FILE}",
    "DataFromIterable": f"an iterable has no items that can be asked for by their number: use DataFromList, or {_FILE}",
    "TFRecordData": f"a TFRecord file is read from its beginning: give several of them to DataFromShards, or {_FILE}",
}
# What runs passes of its own to measure; and threads that fetch the items of NetworkImages, which are the source.
_STEPPED_OVER = {"TestDataSpeed", "ParallelImages"}
_PARALLEL_MAP = "ParallelMapData"
_MAP_AND_BATCH = "MultiProcessMapAndBatchData"


@dataclass(frozen=True)
class Batch:
    """How the consumer is to batch, in place of a BatchData at the pipeline's end; the arguments are that one's."""

    batch_size: int
    remainder: bool
    use_list: bool


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that can be run item by item.

    Attributes:
        operators: from the outermost to the one next to the source, without a BatchData at the end.
        source: what has items or shards.
        sharded: it has shards.
        batch: the BatchData that was at the end.
    """

    operators: list[Any]
    source: Any
    sharded: bool
    batch: Batch | None


def analysed(ds: Any) -> Pipeline:
    """Walk from the outermost operator to the source: what has ``len()`` and ``ds[index]``, or shards.

    The outermost that has either is the source, whatever it consists of.

    Raises:
        ConfigError: the pipeline cannot be run item by item; it says what to change.
    """
    operators: list[Any] = []
    batch = None
    below: Any = as_dataflow(ds)
    below = below.ds if type(below).__name__ == "_Foreign" else below
    while not (_has_items(below) or _has_shards(below)):
        names = {base.__name__ for base in type(below).__mro__}
        if not operators and batch is None and (batch := _batch_of(below, names)) is not None:
            if _MAP_AND_BATCH in names:
                operators.append(below)
        elif not names & _STEPPED_OVER:
            _refuse(below, names)
            operators.append(below)
        below = _below(below, names)
    for ds in (*operators, below):
        _refuse_tensorpacks(ds)
    _tell(operators, below)
    return Pipeline(operators, below, not _has_items(below), batch)


def is_parallel_map(operator: Any) -> bool:
    """Tell whether it is a map in threads or processes."""
    return _PARALLEL_MAP in {base.__name__ for base in type(operator).__mro__}


def in_processes(operator: Any) -> bool:
    """Tell whether it is a map whose function gets copies of the datapoints, which it may change."""
    return "MultiProcessMapData" in {base.__name__ for base in type(operator).__mro__}


def name_of_source(source: Any) -> str:
    """Return the name of a source's class: of the object that stands in for a DataFlow, if it is one."""
    return type(adapted(source)).__name__


def adapted(source: Any) -> Any:
    """Return the data set or list that ``dfserve.dataflow`` made a DataFlow of, or ``source`` itself."""
    return vars(source)["_items"] if type(source).__name__ == "_Indexed" else source


def _has_items(ds: Any) -> bool:
    if getattr(type(ds), "__getitem__", None) is None:
        return False
    if known_length(ds) is None:
        raise ConfigError(
            f"{name_of_source(ds)} has items, but does not know its length: {_IN_EPOCHS}, and needs to know how many"
            " there are; define __len__"
        )
    return True


def _has_shards(ds: Any) -> bool:
    return getattr(ds, "shard_keys", None) is not None and getattr(ds, "open_shard", None) is not None


def _batch_of(ds: Any, names: set[str]) -> Batch | None:
    if _MAP_AND_BATCH in names:
        return Batch(ds.batch_size, remainder=False, use_list=False)
    if not isinstance(ds, BatchData) or "BatchDataByShape" in names:
        return None
    if type(ds).__iter__ is not BatchData.__iter__ or type(ds).aggregate_batch is not BatchData.aggregate_batch:
        raise ConfigError(
            f"{type(ds).__name__} batches in its own way, and in epochs mode the consumer batches: remove it, and give"
            " the function to the consumer as RemoteDataZMQ(collate=...)"
        )
    return Batch(ds.batch_size, ds.remainder, ds.use_list)


def _refuse(ds: Any, names: set[str]) -> None:
    if "BatchData" in names and not isinstance(ds, BatchData):
        raise ConfigError(
            f"{type(ds).__name__} is not dfserve's: {_IN_EPOCHS}, and the consumer batches. Import BatchData from"
            " dfserve.dataflow and have it at the end of the pipeline, or use RemoteDataZMQ(batch_size=...)"
        )
    if "BatchData" in names and "BatchDataByShape" not in names:
        raise ConfigError(
            f"{type(ds).__name__} is not the last operator: {_IN_EPOCHS}, and the consumer batches. Move it to the end"
            " of the pipeline, and have the operators after it work on single datapoints"
        )
    if _MAP_AND_BATCH in names:
        raise ConfigError(
            f"{type(ds).__name__} is not the last operator: {_IN_EPOCHS}, and the consumer batches. Move it to the end"
            " of the pipeline, or use MapData and RemoteDataZMQ(batch_size=...)"
        )
    for base in type(ds).__mro__:
        if (remedy := _REMEDIES.get(base.__name__)) is not None:
            raise ConfigError(f"{_called(ds)} cannot be served in epochs mode; {_of_iterated(ds) or remedy}")


def _of_iterated(ds: Any) -> str:
    """Say what to do with an object that is only iterated because it lacks something; empty if it is no such."""
    iterated = vars(ds).get("_source")
    names = {base.__name__ for base in type(iterated).__mro__}
    if "DataLoader" in names:
        return "return its .dataset: batch_size, shuffle and collate= are RemoteDataZMQ's, num_workers is --workers"
    if "IterableDataset" in names:
        return (
            "it has no items that can be asked for by their number: serve it as a stream (mode='stream'), or read its"
            " files as shards, with shard_keys() and open_shard(key)"
        )
    lacks_length = hasattr(type(iterated), "__getitem__") and known_length(iterated) is None
    return "it has __getitem__, and no __len__: add it" if lacks_length else ""


def _refuse_tensorpacks(ds: Any) -> None:
    if any(base.__module__.partition(".")[0] == "tensorpack" for base in type(ds).__mro__):
        raise ConfigError(
            f"{type(ds).__name__} is tensorpack's, whose random numbers cannot be set for each item; import it, or what"
            " it derives from, from dfserve.dataflow"
        )


def _called(ds: Any) -> str:
    name = type(ds).__name__
    iterated = vars(ds).get("_source")
    return name if iterated is None else f"{name} of a {type(iterated).__name__}"


def _below(ds: Any, names: set[str]) -> Any:
    if "ParallelImages" in names:  # its source is only the list; the images are the items
        return ds.images
    below = getattr(ds, "ds", None)
    if below is not None and hasattr(below, "reset_state"):
        return below
    raise ConfigError(
        f"{type(ds).__name__} is a source without items: {_IN_EPOCHS}, whose number it is told. Give it __len__ and"
        " __getitem__(index), or shard_keys() and open_shard(key); if it is an operator, derive it from ProxyDataFlow,"
        " with its source as self.ds"
    )


def _tell(operators: list[Any], source: Any) -> None:
    for operator in operators:
        if is_parallel_map(operator):
            log.info(
                "%s: in epochs mode its function runs in the worker itself, one item after the other;"
                " `dfserve produce --workers N` does it in N processes",
                type(operator).__name__,
            )
    if getattr(source, "shuffle", False) is True or getattr(source, "_shuffle", False) is True:
        log.info(
            "%s: its shuffle=True is not used in epochs mode, the consumer's plan orders the items",
            name_of_source(source),
        )
