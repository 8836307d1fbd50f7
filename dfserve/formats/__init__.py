"""Owns the plain formats: one frame per datapoint, as other software speaks them, without broker and guarantees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from dfserve.errors import ConfigError
from dfserve.formats import plain_msgpack, zmq_ops

Dumps: TypeAlias = Callable[[Any], bytes]
Loads: TypeAlias = Callable[[bytes | memoryview], Any]

_FORMATS: dict[str, tuple[Dumps, Loads]] = {
    "msgpack": (plain_msgpack.dumps, plain_msgpack.loads),
    "zmq_ops": (zmq_ops.dumps, zmq_ops.loads),
    "zmq_op": (zmq_ops.dumps, zmq_ops.loads),  # tensorpack takes both names
}


def dumps_of(name: str) -> Dumps:
    """Return what encodes a datapoint in format ``"msgpack"`` or ``"zmq_ops"``. Raises ConfigError for other names."""
    return _format(name)[0]


def loads_of(name: str) -> Loads:
    """Return what decodes a frame of format ``"msgpack"`` or ``"zmq_ops"``. Raises ConfigError for other names."""
    return _format(name)[1]


def _format(name: str) -> tuple[Dumps, Loads]:
    if name not in _FORMATS:
        raise ConfigError(f"there is no format {name!r}; use None (dfserve's own), 'msgpack' or 'zmq_ops'")
    return _FORMATS[name]
