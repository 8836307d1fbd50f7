"""Owns the two ways between an array and the raw bytes of a frame: the sender's copy and the receiver's view."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dfserve.wire.recycler import Recycler

Array = np.ndarray[Any, Any]

# Returns uninitialised memory of so many bytes, which is a lease as the Recycler's are; None: there is no room.
Supply = Callable[[int], "Array | None"]

RECYCLED = 512 << 10  # bytes; the C library reuses smaller memory by itself
_RECYCLER = Recycler()


def is_array(value: object) -> bool:
    """Tell whether a value travels as an array: an ndarray, or a memmap (it comes back as an ndarray), no subclass."""
    kind = type(value)
    return kind is np.ndarray or kind is np.memmap


def blank(nbytes: int, dtype: np.dtype[Any]) -> Array:
    """Return uint8 memory for arrays of a dtype: zeroed if the dtype may have gaps, which must not carry our memory.

    Large memory is a lease, see `Recycler`: hold it, or a memoryview of it, for as long as it is used.
    """
    if dtype.kind == "V":
        return np.zeros(nbytes, np.uint8)
    return _RECYCLER.take(nbytes) if nbytes >= RECYCLED else np.empty(nbytes, np.uint8)


def supplied(nbytes: int, dtype: np.dtype[Any], supply: Supply | None) -> Array | None:
    """Return memory as `blank` does, a lease too, if it is large and the supply has room; else None."""
    raw = None if supply is None or nbytes < RECYCLED else supply(nbytes)
    if raw is not None and dtype.kind == "V":
        raw[...] = 0
    return raw


def blank_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised, writable array. Large memory is used again when nothing refers to the array any more."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < RECYCLED:
        return np.empty(shape, dtype)
    # frombuffer() refers to the memoryview, which holds the lease; ndarray(buffer=) would go round both.
    return np.frombuffer(_RECYCLER.take(nbytes).data, dtype).reshape(shape)


def array_bytes(value: Array, supply: Supply | None = None) -> Array:
    """Return a copy of an array's elements in C order, uint8 of shape (nbytes,), in supplied memory if there is any."""
    raw = supplied(value.nbytes, value.dtype, supply)
    if raw is None:
        raw = blank(value.nbytes, value.dtype)
    np.ndarray(value.shape, value.dtype, buffer=raw.data)[...] = value
    return raw


def locked(frame: memoryview) -> Array:
    """Return a frame as uint8. Arrays over a read-only one cannot be made writable, not even if its owner is."""
    return np.frombuffer(frame, np.uint8)  # numpy.ndarray(buffer=frame) would go round the memoryview, to the owner


def array_view(
    memory: Array | bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0
) -> Array:
    """Return an array over the bytes of a locked frame or of a body, which it keeps alive; read-only if they are.

    The caller has checked that there are enough. No copy, unless the bytes do not lie as the dtype's alignment
    asks (libzmq packs short frames one after another): some extension modules crash on such arrays.
    """
    array: Array = np.ndarray(shape, dtype, buffer=memory, offset=offset)
    if array.flags.aligned:
        return array
    copy: Array = array.copy()
    if not array.flags.writeable:
        copy.flags.writeable = False
        copy = copy[...]  # of a view, the flag cannot be taken back
    return copy
