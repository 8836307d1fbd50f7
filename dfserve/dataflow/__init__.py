"""Owns the names of the DataFlow library: sources and operators as in tensorpack, and the two ends of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfserve.dataflow import dataset
from dfserve.dataflow.base import DataFlow, ProxyDataFlow, RNGDataFlow
from dfserve.dataflow.batch import BatchData
from dfserve.dataflow.mapping import MapData, MapDataComponent
from dfserve.dataflow.printing import PrintData
from dfserve.dataflow.repeat import RepeatedData
from dfserve.dataflow.rng import fix_rng_seed, get_rng
from dfserve.dataflow.sources import DataFromGenerator, DataFromList, FakeData
from dfserve.dataflow.speed import TestDataSpeed

if TYPE_CHECKING:
    # The ends of a stream live in the roles, which a shared module must not import; __getattr__ finds them.
    RemoteDataZMQ: Any
    send_dataflow_zmq: Any

__all__ = [
    "BatchData",
    "DataFlow",
    "DataFromGenerator",
    "DataFromList",
    "FakeData",
    "MapData",
    "MapDataComponent",
    "PrintData",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RemoteDataZMQ",
    "RepeatedData",
    "TestDataSpeed",
    "dataset",
    "fix_rng_seed",
    "get_rng",
    "send_dataflow_zmq",
]

_FROM_THE_TOP = frozenset({"RemoteDataZMQ", "send_dataflow_zmq"})


def __getattr__(name: str) -> Any:
    if name in _FROM_THE_TOP:
        import dfserve

        return getattr(dfserve, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
