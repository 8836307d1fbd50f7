"""Owns the public surface: what `import dfserve` offers. Roles load when first asked for: the import is light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfserve.errors import (
    AddressInUse,
    BlockTooLarge,
    BrokerLost,
    ConfigError,
    DatapointError,
    DfserveError,
    DownloadError,
    EncodeError,
    EndpointError,
    FactoryError,
    KeysError,
    LedgerError,
    PipelineError,
    RemoteError,
    Starved,
    StoreError,
    TooManyErrors,
    UnknownLengthError,
    WireError,
    WorkerLost,
)
from dfserve.version import __version__

if TYPE_CHECKING:
    from dfserve.consumer.remote import RemoteDataZMQ
    from dfserve.producer.send import send_dataflow_zmq
    from dfserve.wire.copies import writable

__all__ = [
    "AddressInUse",
    "BlockTooLarge",
    "BrokerLost",
    "ConfigError",
    "DatapointError",
    "DfserveError",
    "DownloadError",
    "EncodeError",
    "EndpointError",
    "FactoryError",
    "KeysError",
    "LedgerError",
    "PipelineError",
    "RemoteDataZMQ",
    "RemoteError",
    "Starved",
    "StoreError",
    "TooManyErrors",
    "UnknownLengthError",
    "WireError",
    "WorkerLost",
    "__version__",
    "send_dataflow_zmq",
    "writable",
]

_LAZY = {
    "RemoteDataZMQ": "dfserve.consumer.remote",
    "send_dataflow_zmq": "dfserve.producer.send",
    "writable": "dfserve.wire.copies",
}


def __getattr__(name: str) -> Any:
    """Load a role the first time one of its names is used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'dfserve' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
