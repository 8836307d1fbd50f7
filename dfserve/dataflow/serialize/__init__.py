"""Owns the names of the serializers: LMDB, npz, HDF5 and TFRecord. Each is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfserve.dataflow.serialize.hdf5 import HDF5Serializer
    from dfserve.dataflow.serialize.lmdb_store import LMDBSerializer
    from dfserve.dataflow.serialize.numpy_file import NumpySerializer
    from dfserve.dataflow.serialize.tfrecord import TFRecordSerializer

__all__ = ["HDF5Serializer", "LMDBSerializer", "NumpySerializer", "TFRecordSerializer"]

_MODULES = {
    "HDF5Serializer": "hdf5",
    "LMDBSerializer": "lmdb_store",
    "NumpySerializer": "numpy_file",
    "TFRecordSerializer": "tfrecord",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
