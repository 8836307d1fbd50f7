"""Owns how a dtype is written for msgpack-numpy (as numpy's descr) and read back without trusting the bytes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from dfserve.errors import WireError

# What dtype.str can be for plain data: no "O", no structures or repeats in the text, which np.dtype would parse.
_PLAIN = re.compile(r"[<>|=][biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[A-Za-zμ]{1,7}\])?")
MAX_FIELDS = 1024  # of one structure; numpy's own descriptions of records stay far below
MAX_DEPTH = 8  # structures within structures


@lru_cache(maxsize=256)  # a pipeline has few dtypes and asks for each datapoint
def travels(dtype: np.dtype[Any]) -> bool:
    """Whether a receiver reads back the same dtype: false for objects, padded or titled structures and empty items."""
    if dtype.hasobject or dtype.itemsize == 0:
        return False
    try:
        return read(_as_received(dtype.descr) if dtype.kind == "V" else dtype.str) == dtype
    except (WireError, TypeError, ValueError):  # numpy has no descr for overlapping or reordered fields
        return False


def read(described: Any) -> np.dtype[Any]:
    """Build the dtype that a frame describes: a str, or a list of [name, dtype] and [name, dtype, shape].

    Raises:
        WireError: with reason ``dtype``.
    """
    try:
        dtype = _build(described, 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError("dtype", f"numpy refuses the dtype: {error}") from None
    if dtype.hasobject or dtype.itemsize == 0:
        raise WireError("dtype", f"dtype {dtype} is refused: only plain data travels")
    return dtype


def _build(described: Any, depth: int) -> np.dtype[Any]:
    if isinstance(described, str):
        if not _PLAIN.fullmatch(described):
            raise WireError("dtype", f"dtype {described[:40]!r} is refused: only plain data travels")
        return np.dtype(described)
    if not isinstance(described, list) or not 0 < len(described) <= MAX_FIELDS or depth >= MAX_DEPTH:
        raise WireError("dtype", "the description of a dtype is neither a name nor a list of fields within the limits")
    return np.dtype([_field(field, depth) for field in described])


def _field(field: Any, depth: int) -> Any:
    if not isinstance(field, list) or len(field) not in (2, 3) or not isinstance(field[0], str):
        raise WireError("dtype", "a field of a structured dtype is not [name, dtype] or [name, dtype, shape]")
    inner = _build(field[1], depth + 1)
    if len(field) == 2:
        return (field[0], inner)
    shape = field[2]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise WireError("dtype", "the shape of a field is not a list of sizes")
    return (field[0], inner, tuple(shape))


def _as_received(descr: Any) -> Any:
    """A descr after its way through msgpack, which has no tuples."""
    return [_as_received(entry) for entry in descr] if isinstance(descr, (list, tuple)) else descr
