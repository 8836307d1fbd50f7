"""Owns the fast lane for what nearly every record holds: a block of one datapoint of arrays, numbers and texts.

Reading such a block the general way, which believes nothing that a stranger on the network says, takes longer than
copying an array of 100 KB. Here only the plainest form is understood; whatever else it is goes the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dfserve.errors import WireError
from dfserve.wire.blocks import Datapoint, decode_block
from dfserve.wire.columns import STACK, VALUES
from dfserve.wire.copies import writable
from dfserve.wire.dtypes import read_dtype
from dfserve.wire.limits import Limits
from dfserve.wire.unpatched import unpackb
from dfserve.wire.values import PLAIN_TYPES

_MOST_DTYPES = 256  # remembered ones; a data set has few
_NUMBERS = "biufc"  # kinds of dtype of which a numpy scalar is read here


class _Dtypes(dict[str, np.dtype[Any]]):
    """dtypes by what stands for them in a body."""

    def __missing__(self, spec: str) -> np.dtype[Any]:
        dtype = read_dtype(spec)
        if len(self) < _MOST_DTYPES:
            self[spec] = dtype
        return dtype


_DTYPES = _Dtypes()


def read_datapoint(frames: Sequence[memoryview], limits: Limits) -> Datapoint:
    """Return the datapoint of a block of one; its arrays are writable copies, so the frames may go away.

    Raises:
        WireError: the frames are no block of one datapoint.
    """
    try:
        datapoint = _read_plain(frames)
    except (ValueError, TypeError, LookupError, OverflowError, WireError):  # what msgpack and numpy raise
        datapoint = None
    if datapoint is not None:
        return datapoint
    datapoints = decode_block(frames, limits)  # tells what is wrong
    if len(datapoints) != 1:
        raise WireError("body", f"it holds {len(datapoints)} datapoints")
    return writable(datapoints[0])


def _read_plain(frames: Sequence[memoryview]) -> Datapoint | None:
    """Return the datapoint, or None if the block is not of the plainest form. What is returned passed every check."""
    count, kind, keys, columns = unpackb(frames[0])
    values = []
    used = 1
    for column in columns:
        if column[0] == STACK:
            _, spec, shape, number, is_scalar = column
            memory = bytearray(frames[used])  # a quarter faster than copying an array of it
            array: np.ndarray[Any, Any] = np.ndarray(shape, _DTYPES[spec], memory)
            if number != used or array.nbytes != len(memory) or type(number) is not int or type(is_scalar) is not bool:
                return None
            used += 1
            values.append(_number(array) if is_scalar else array)
        elif column[0] == VALUES and type(column[1][0]) in PLAIN_TYPES and len(column[1]) == 1:
            values.append(column[1][0])
        else:
            return None
    if count != 1 or used != len(frames) or not type(count) is type(kind) is int:
        return None
    return values if kind == 0 and keys is None else _made(kind, keys, values)


def _number(array: np.ndarray[Any, Any]) -> Any:
    if array.ndim or array.dtype.kind not in _NUMBERS:
        raise ValueError
    return array[()]


def _made(kind: Any, keys: Any, values: list[Any]) -> Datapoint | None:
    if kind == 1 and keys is None:
        return tuple(values)
    if kind != 2 or type(keys) is not list or len(keys) != len(values) or not all(type(key) is str for key in keys):
        return None
    made = dict(zip(keys, values, strict=True))
    return made if len(made) == len(keys) else None
