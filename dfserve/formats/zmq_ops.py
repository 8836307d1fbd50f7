"""Owns ``format="zmq_ops"``: the layout that tensorpack's TensorFlow op (zmq_ops) reads, and that its sender writes.

Little-endian, without padding: int32 count; then for each array int32 TensorFlow dtype, int32 ndim, int32 for each
dimension, int64 length in bytes, the bytes in C order.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from dfserve.errors import EncodeError, WireError

# enum DataType of TensorFlow's types.proto, without strings (7) and what numpy does not have
ENUM_OF_DTYPE: dict[np.dtype[Any], int] = {
    np.dtype(name): number
    for name, number in {
        "<f4": 1, "<f8": 2, "<i4": 3, "|u1": 4, "<i2": 5, "|i1": 6, "<c8": 8, "<i8": 9, "|b1": 10,
        "<u2": 17, "<c16": 18, "<f2": 19, "<u4": 22, "<u8": 23,
    }.items()
}  # fmt: skip  # one line per row of the enum would be a page
DTYPE_OF_ENUM = {number: dtype for dtype, number in ENUM_OF_DTYPE.items()}
MAX_DIMS = 8  # the op aborts its process on more
MAX_DIM = (1 << 31) - 1  # int32
MAX_COUNT = 1024  # arrays in a datapoint; an op with more outputs than that is not in any graph
INT32, INT64 = struct.Struct("<i"), struct.Struct("<q")


def dumps(datapoint: list[Any] | tuple[Any, ...]) -> bytes:
    """Encode a list of arrays and numbers.

    As zmq_ops does, a Python int becomes int32 and a Python float float32, both 0-d. An ``np.float64`` is a Python
    float, and a graph that was made for zmq_ops expects it as float32; ``np.asarray`` of it keeps its width. Other
    components go through ``np.asarray``. Any strides and byte order are accepted, and travel little-endian in C order.

    Raises:
        EncodeError: a dict, too many arrays or dimensions, an int outside int32, or a dtype that TensorFlow's op
            does not take: strings, objects, dates, structures.
    """
    if not isinstance(datapoint, (list, tuple)):
        raise EncodeError(
            f"format zmq_ops takes a list of arrays, not {type(datapoint).__name__}; components have no names"
        )
    if len(datapoint) > MAX_COUNT:
        raise EncodeError(f"format zmq_ops: {len(datapoint)} components exceed {MAX_COUNT}")
    parts: list[Any] = [INT32.pack(len(datapoint))]
    for index, component in enumerate(datapoint):
        array = _as_array(component, index)
        header = (ENUM_OF_DTYPE[array.dtype], array.ndim, *array.shape)
        parts += [struct.pack(f"<{len(header)}i", *header), INT64.pack(array.nbytes), array.reshape(-1).view(np.uint8)]
    return b"".join(parts)


def _as_array(component: Any, index: int) -> np.ndarray[Any, Any]:
    array = _converted(component, index)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in ENUM_OF_DTYPE or isinstance(array, np.ma.MaskedArray):
        raise EncodeError(
            f"component {index}: {type(component).__name__} of dtype {array.dtype} is nothing that zmq_ops takes"
        )
    if array.ndim > MAX_DIMS or any(size > MAX_DIM for size in array.shape):
        raise EncodeError(f"component {index}: shape {array.shape} exceeds {MAX_DIMS} dimensions of {MAX_DIM}")
    return np.asarray(array, dtype, order="C")


def _converted(component: Any, index: int) -> np.ndarray[Any, Any]:
    if isinstance(component, np.ndarray):
        return component
    if isinstance(component, int) and not -MAX_DIM - 1 <= component <= MAX_DIM:
        raise EncodeError(f"component {index}: the int {component:.3e} does not fit into int32; pass np.int64(…)")
    kind = np.int32 if isinstance(component, int) else np.float32 if isinstance(component, float) else None
    try:
        return np.asarray(component, kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise EncodeError(f"component {index}: no array can be made of a {type(component).__name__}: {error}") from None


def loads(frame: bytes | memoryview) -> list[np.ndarray[Any, Any]]:
    """Decode a frame into arrays: writable copies, aligned, in C order.

    Raises:
        WireError: and nothing else, whatever the bytes; its reason is ``body``, ``limits``, ``dtype`` or ``shape``.
            All lengths of an array are checked before memory is taken for it.
    """
    count, at = _read(INT32, frame, 0)
    if not 0 <= count <= MAX_COUNT:
        raise WireError("limits", f"a datapoint of {count} arrays exceeds {MAX_COUNT}")
    arrays = []
    for _ in range(count):
        array, at = _read_array(frame, at)
        arrays.append(array)
    if at != len(frame):
        raise WireError("body", f"{len(frame) - at} bytes follow the last array")
    return arrays


def _read(layout: struct.Struct, frame: bytes | memoryview, at: int) -> tuple[int, int]:
    if at + layout.size > len(frame):
        raise WireError("body", f"the frame ends at byte {len(frame)}, in the middle of a number at {at}")
    return int(layout.unpack_from(frame, at)[0]), at + layout.size


def _read_array(frame: bytes | memoryview, at: int) -> tuple[np.ndarray[Any, Any], int]:
    number, at = _read(INT32, frame, at)
    dtype = DTYPE_OF_ENUM.get(number)
    if dtype is None:
        raise WireError("dtype", f"TensorFlow's dtype {number} is none that dfserve takes")
    shape, at = _read_shape(frame, at)
    size, at = _read(INT64, frame, at)
    if size != math.prod(shape) * dtype.itemsize:
        raise WireError("shape", f"an array of shape {shape} and dtype {dtype} came with {size} bytes")
    if size > len(frame) - at:
        raise WireError("body", f"the frame ends at byte {len(frame)}, in the middle of {size} bytes at {at}")
    try:
        return np.ndarray(shape, dtype, frame, at).copy(), at + size
    except (ValueError, TypeError, OverflowError) as error:  # sizes beside a 0 whose product no array can have
        raise WireError("shape", f"numpy refuses shape {shape}: {error}") from None


def _read_shape(frame: bytes | memoryview, at: int) -> tuple[tuple[int, ...], int]:
    ndim, at = _read(INT32, frame, at)
    if not 0 <= ndim <= MAX_DIMS:
        raise WireError("limits", f"an array of {ndim} dimensions exceeds {MAX_DIMS}")
    shape = []
    for _ in range(ndim):
        size, at = _read(INT32, frame, at)
        if size < 0:
            raise WireError("shape", f"a dimension of {size}")
        shape.append(size)
    return tuple(shape), at
