"""Owns the fast lane for what nearly every block of one datapoint holds: arrays, numbers and texts.

Making or reading such a block the general way, which looks for whatever may be in it and believes nothing that a
stranger on the network says, takes longer than copying an array of 100 KB. Here only the plainest form is understood;
whatever else it is goes the general way. For files and pipes of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfserve.errors import WireError
from dfserve.wire.arrays import array_view, locked
from dfserve.wire.blocks import Datapoint, decode_block
from dfserve.wire.columns import STACK, VALUES
from dfserve.wire.copies import writable
from dfserve.wire.dtypes import dtype_spec, read_dtype
from dfserve.wire.limits import Limits
from dfserve.wire.unpatched import Packer, unpackb
from dfserve.wire.values import PLAIN_TYPES

_MOST_DTYPES = 256  # remembered ones; a data set has few
_NUMBERS = "biufc"  # kinds of dtype of which a numpy scalar is read here, and arrays are lent
_SHORT = 4096  # characters of a text, or bytes, that are lent beside an array
_SMALL_TYPES = frozenset({int, float, bool, type(None)})
_ODD = (ValueError, TypeError, LookupError, OverflowError, WireError)  # what msgpack and numpy raise


class _Dtypes(dict[str, np.dtype[Any]]):
    """dtypes by what stands for them in a body."""

    def __missing__(self, spec: str) -> np.dtype[Any]:
        dtype = read_dtype(spec)
        if len(self) < _MOST_DTYPES:
            self[spec] = dtype
        return dtype


class _Specs(dict[np.dtype[Any], Any]):
    """The same the other way round."""

    def __missing__(self, dtype: np.dtype[Any]) -> Any:
        spec = dtype_spec(dtype)
        if len(self) < _MOST_DTYPES:
            self[dtype] = spec
        return spec


_DTYPES = _Dtypes()
_SPECS = _Specs()
_pack = Packer().pack


def read_datapoint(frames: Sequence[memoryview], limits: Limits) -> Datapoint:
    """Return the datapoint of a block of one; its arrays are writable copies, so the frames may go away.

    Raises:
        WireError: the frames are no block of one datapoint.
    """
    try:
        datapoint = _read_plain(frames, _copied)
    except _ODD:
        datapoint = None
    if datapoint is not None:
        return datapoint
    datapoints = decode_block(frames, limits)  # tells what is wrong
    if len(datapoints) != 1:
        raise WireError("body", f"it holds {len(datapoints)} datapoints")
    return writable(datapoints[0])


def view_datapoint(frames: Sequence[memoryview | bytearray]) -> Datapoint | None:
    """Return the datapoint of a block of one as ``decode_block(frames, writable=True)`` would: its arrays are views.

    None if the block is not of the plainest form.
    """
    try:
        return _read_plain(frames, _seen)
    except _ODD:
        return None


def lend_datapoint(datapoint: Datapoint) -> tuple[bytes, list[memoryview]] | None:
    """Return the body and the frames of a block of one as ``BlockBuilder(lend=True)`` would make it.

    None if it is not of the plainest form: a list or tuple of numeric arrays in C order, numbers and short texts.
    """
    kind = type(datapoint)
    if kind is not list and kind is not tuple:
        return None
    columns: list[Any] = []
    frames: list[memoryview] = []
    for value in datapoint:
        if type(value) is np.ndarray:
            if value.dtype.kind not in _NUMBERS or value.dtype.char in "gG" or not value.ndim or not value.size:
                return None
            if not value.flags.c_contiguous:
                return None
            frames.append(value.reshape(-1).view(np.uint8).data)
            columns.append([STACK, _SPECS[value.dtype], value.shape, len(frames), False])
        elif type(value) in _SMALL_TYPES or (type(value) in (str, bytes) and len(value) <= _SHORT):
            columns.append([VALUES, [value]])
        else:
            return None
    try:
        return _pack([1, int(kind is tuple), None, columns]), frames
    except (ValueError, OverflowError):  # lone surrogates, an integer of more than 64 bits
        return None


def _copied(frame: memoryview, shape: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.ndarray(
        shape, dtype, bytearray(frame)
    )  # a quarter faster than copying an array of it
    return array


def _seen(frame: memoryview, shape: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = array_view(locked(frame), dtype, tuple(shape))
    return array


def _read_plain(frames: Sequence[Any], array_of: Callable[..., np.ndarray[Any, Any]]) -> Datapoint | None:
    """Return the datapoint, or None if the block is not of the plainest form. What is returned passed every check."""
    count, kind, keys, columns = unpackb(frames[0])
    values = []
    used = 1
    for column in columns:
        if column[0] == STACK:
            _, spec, shape, number, is_scalar = column
            array = array_of(frames[used], shape, _DTYPES[spec])
            if (
                number != used
                or array.nbytes != len(frames[used])
                or type(number) is not int
                or type(is_scalar) is not bool
            ):
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
