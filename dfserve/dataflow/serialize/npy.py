"""Owns looking into ``.npy`` bytes without copying, unpickling, or believing what their header claims."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

_Array = np.ndarray[Any, np.dtype[Any]]
LONGEST_HEADER = 1 << 16  # bytes looked at; numpy writes 128, and a structured dtype takes some more
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def view_npy(data: memoryview) -> _Array:
    """Return the array that ``.npy`` bytes hold, as a view of them: read-only if they are.

    Raises:
        ValueError: they are no ``.npy`` of version 1 or 2, have fewer bytes than their header claims, or hold objects,
            which could only be unpickled.
    """
    shape, fortran, dtype, start = read_header(data[:LONGEST_HEADER], len(data))
    count = math.prod(shape)
    flat = np.frombuffer(data, dtype, count, start) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_header(head: bytes | memoryview, nbytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether in Fortran's order, dtype, and where the elements begin.

    Args:
        head: the first ``LONGEST_HEADER`` bytes, or all if there are fewer.
        nbytes: how many bytes there are in all.

    Raises:
        ValueError: as ``view_npy``.
    """
    file = io.BytesIO(head)
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's parser raises a dozen kinds on bad bytes
        raise ValueError(f"no .npy header: {type(error).__name__}: {error}") from error
    if not dtype.itemsize:
        raise ValueError(f"an array of {dtype} has elements without bytes")
    if dtype.hasobject:
        raise ValueError(f"an array of {dtype} holds Python objects, which nothing here unpickles")
    start = file.tell()
    # math.prod multiplies Python's integers: numpy's may overflow.
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > nbytes - start:
        raise ValueError(f"an array of shape {shape} and {dtype} is not in {nbytes - start} bytes")
    return shape, fortran, dtype, start
