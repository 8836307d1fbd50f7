"""Owns the names of the DataFlow library: sources, operators and serializers as in tensorpack, and a stream's two ends.

``from dfserve.dataflow import *`` gives what tensorpack's gives, ``imgaug`` and ``dataset`` with it. Each module loads
when one of its names is first asked for: a trainer that only receives needs none of them, and a pipeline few.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfserve.dataflow import dataset, imgaug
    from dfserve.dataflow.augment import AugmentImageComponent, AugmentImageComponents, AugmentImageCoordinates
    from dfserve.dataflow.base import DataFlow, ProxyDataFlow, RNGDataFlow
    from dfserve.dataflow.batch import BatchData
    from dfserve.dataflow.by_shape import BatchDataByShape
    from dfserve.dataflow.cache import CacheData
    from dfserve.dataflow.combine import ConcatData, JoinData, RandomChooseData, RandomMixData
    from dfserve.dataflow.fixed_size import FixedSizeData
    from dfserve.dataflow.image_files import ImageFromFile
    from dfserve.dataflow.mapping import MapData, MapDataComponent
    from dfserve.dataflow.parallel.map_and_batch import MultiProcessMapAndBatchData, MultiProcessMapAndBatchDataZMQ
    from dfserve.dataflow.parallel.process_map import MultiProcessMapData, MultiProcessMapDataZMQ
    from dfserve.dataflow.parallel.process_runner import MultiProcessRunner, MultiProcessRunnerZMQ
    from dfserve.dataflow.parallel.thread_map import MultiThreadMapData
    from dfserve.dataflow.parallel.thread_runner import MultiThreadRunner
    from dfserve.dataflow.policy import SkipErrors
    from dfserve.dataflow.printing import PrintData
    from dfserve.dataflow.queues import DataFromQueue
    from dfserve.dataflow.repeat import RepeatedData, RepeatedDataPoint
    from dfserve.dataflow.rng import fix_rng_seed, get_rng
    from dfserve.dataflow.select import SelectComponent
    from dfserve.dataflow.serialize import HDF5Serializer, LMDBSerializer, NumpySerializer, TFRecordSerializer
    from dfserve.dataflow.serialize.hdf5_data import HDF5Data
    from dfserve.dataflow.serialize.lmdb_data import LMDBData, LMDBDataDecoder, LMDBDataPoint
    from dfserve.dataflow.serialize.webdataset import WebDataset
    from dfserve.dataflow.sharded import DataFromShards, ShardedDataFlow
    from dfserve.dataflow.shuffle import LocallyShuffleData
    from dfserve.dataflow.sources import DataFromGenerator, DataFromIterable, DataFromList, FakeData
    from dfserve.dataflow.speed import TestDataSpeed

    # The ends of a stream live in the roles, which a shared module must not import; __getattr__ finds them.
    RemoteDataZMQ: Any
    send_dataflow_zmq: Any
    PrefetchData = MultiProcessPrefetchData = MultiProcessRunner
    PrefetchDataZMQ = MultiProcessRunnerZMQ
    MultiThreadPrefetchData = MultiThreadRunner

__all__ = [
    "AugmentImageComponent",
    "AugmentImageComponents",
    "AugmentImageCoordinates",
    "BatchData",
    "BatchDataByShape",
    "CacheData",
    "ConcatData",
    "DataFlow",
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "DataFromShards",
    "FakeData",
    "FixedSizeData",
    "HDF5Data",
    "HDF5Serializer",
    "ImageFromFile",
    "JoinData",
    "LMDBData",
    "LMDBDataDecoder",
    "LMDBDataPoint",
    "LMDBSerializer",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "MultiProcessMapAndBatchData",
    "MultiProcessMapAndBatchDataZMQ",
    "MultiProcessMapData",
    "MultiProcessMapDataZMQ",
    "MultiProcessPrefetchData",
    "MultiProcessRunner",
    "MultiProcessRunnerZMQ",
    "MultiThreadMapData",
    "MultiThreadPrefetchData",
    "MultiThreadRunner",
    "NumpySerializer",
    "PrefetchData",
    "PrefetchDataZMQ",
    "PrintData",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RandomChooseData",
    "RandomMixData",
    "RemoteDataZMQ",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShardedDataFlow",
    "SkipErrors",
    "TFRecordSerializer",
    "TestDataSpeed",
    "WebDataset",
    "dataset",
    "fix_rng_seed",
    "get_rng",
    "imgaug",
    "send_dataflow_zmq",
]

_MODULES = {
    "AugmentImageComponent": "augment",
    "AugmentImageComponents": "augment",
    "AugmentImageCoordinates": "augment",
    "BatchData": "batch",
    "BatchDataByShape": "by_shape",
    "CacheData": "cache",
    "ConcatData": "combine",
    "DataFlow": "base",
    "DataFromGenerator": "sources",
    "DataFromIterable": "sources",
    "DataFromList": "sources",
    "DataFromQueue": "queues",
    "DataFromShards": "sharded",
    "FakeData": "sources",
    "FixedSizeData": "fixed_size",
    "HDF5Data": "serialize.hdf5_data",
    "HDF5Serializer": "serialize",
    "ImageFromFile": "image_files",
    "JoinData": "combine",
    "LMDBData": "serialize.lmdb_data",
    "LMDBDataDecoder": "serialize.lmdb_data",
    "LMDBDataPoint": "serialize.lmdb_data",
    "LMDBSerializer": "serialize",
    "LocallyShuffleData": "shuffle",
    "MapData": "mapping",
    "MapDataComponent": "mapping",
    "MultiProcessMapAndBatchData": "parallel.map_and_batch",
    "MultiProcessMapAndBatchDataZMQ": "parallel.map_and_batch",
    "MultiProcessMapData": "parallel.process_map",
    "MultiProcessMapDataZMQ": "parallel.process_map",
    "MultiProcessPrefetchData": "parallel.process_runner",
    "MultiProcessRunner": "parallel.process_runner",
    "MultiProcessRunnerZMQ": "parallel.process_runner",
    "MultiThreadMapData": "parallel.thread_map",
    "MultiThreadPrefetchData": "parallel.thread_runner",
    "MultiThreadRunner": "parallel.thread_runner",
    "NumpySerializer": "serialize",
    "PrefetchData": "parallel.process_runner",
    "PrefetchDataZMQ": "parallel.process_runner",
    "PrintData": "printing",
    "ProxyDataFlow": "base",
    "RNGDataFlow": "base",
    "RandomChooseData": "combine",
    "RandomMixData": "combine",
    "RepeatedData": "repeat",
    "RepeatedDataPoint": "repeat",
    "SelectComponent": "select",
    "ShardedDataFlow": "sharded",
    "SkipErrors": "policy",
    "TFRecordSerializer": "serialize",
    "TestDataSpeed": "speed",
    "WebDataset": "serialize.webdataset",
    "fix_rng_seed": "rng",
    "get_rng": "rng",
}
# tensorpack's old names of the runners.
_NOW = {
    "MultiProcessPrefetchData": "MultiProcessRunner",
    "MultiThreadPrefetchData": "MultiThreadRunner",
    "PrefetchData": "MultiProcessRunner",
    "PrefetchDataZMQ": "MultiProcessRunnerZMQ",
}


def __getattr__(name: str) -> Any:
    if name in ("RemoteDataZMQ", "send_dataflow_zmq"):
        return getattr(import_module("dfserve"), name)
    if name == "imgaug":
        found: Any = _when_used(f"{__name__}.imgaug")
    elif name == "dataset":
        found = import_module(f"{__name__}.dataset")
    elif name in _MODULES:
        found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), _NOW.get(name, name))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _when_used(name: str) -> ModuleType:
    """Return a module that is executed when something of it is first asked for: ``import *`` must not need OpenCV."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} belongs to this package"
    assert spec.loader is not None, f"{name} has a file"
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
