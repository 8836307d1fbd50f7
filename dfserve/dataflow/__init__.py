"""Owns the names of the DataFlow library: sources, operators and serializers as in tensorpack, and a stream's two ends.

``from dfserve.dataflow import *`` gives what tensorpack's gives, ``imgaug`` and ``dataset`` with it. Importing it needs
numpy alone: what needs OpenCV, LMDB or h5py asks for it when it is used.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dfserve.dataflow import dataset
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
from dfserve.dataflow.serialize.hdf5_data import HDF5Data
from dfserve.dataflow.serialize.lmdb_data import LMDBData, LMDBDataDecoder, LMDBDataPoint
from dfserve.dataflow.serialize.webdataset import WebDataset
from dfserve.dataflow.sharded import DataFromShards, ShardedDataFlow
from dfserve.dataflow.shuffle import LocallyShuffleData
from dfserve.dataflow.sources import DataFromGenerator, DataFromIterable, DataFromList, FakeData
from dfserve.dataflow.speed import TestDataSpeed

if TYPE_CHECKING:
    from dfserve.dataflow import imgaug
    from dfserve.dataflow.serialize import HDF5Serializer, LMDBSerializer, NumpySerializer, TFRecordSerializer

    # The ends of a stream live in the roles, which a shared module must not import; __getattr__ finds them.
    RemoteDataZMQ: Any
    send_dataflow_zmq: Any
else:

    def _when_used(name: str) -> ModuleType:
        """Return a module that is executed when something of it is first asked for."""
        spec = importlib.util.find_spec(name)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    imgaug = _when_used(f"{__name__}.imgaug")

# tensorpack's old names of the runners.
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

_ELSEWHERE = {
    "HDF5Serializer": "dfserve.dataflow.serialize",
    "LMDBSerializer": "dfserve.dataflow.serialize",
    "NumpySerializer": "dfserve.dataflow.serialize",
    "TFRecordSerializer": "dfserve.dataflow.serialize",
    "RemoteDataZMQ": "dfserve",
    "send_dataflow_zmq": "dfserve",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE[name]), name)
