"""Owns how a dtype and a shape are written on the wire, and the strict grammar by which they are read.

A plain dtype is numpy's own short string (``"<f4"``); a structured one is ``[itemsize, [[name, title, offset, dtype,
subshape], ...]]``. numpy's dtype parser accepts far more than that (``"object"``, comma lists, names of classes), so
it never sees a text of the wire that the grammar here has not matched.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import Any, cast

import numpy as np

from dfserve.errors import EncodeError, WireError

Spec = str | list[Any]

MAX_FIELDS = 256  # fields of one structured dtype; a record of a table has tens
MAX_NESTING = 8  # structured dtypes within structured dtypes
MAX_ITEMSIZE = (1 << 31) - 1  # bytes; numpy 1.x keeps it in a C int
MAX_DIMS = 31  # numpy 1.x has 32, and a stack of arrays takes one more than the arrays

_UNITS = "Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as"
_PLAIN = re.compile(
    r"\|[biu]1|[<>][iu][248]|[<>]f[248]|[<>]c(?:8|16)"
    r"|\|[SV][1-9][0-9]{0,8}|<U[1-9][0-9]{0,7}|>U[1-9][0-9]{0,7}"
    rf"|[<>][mM]8(?:\[(?:[1-9][0-9]{{0,8}})?(?:{_UNITS})\])?"
)
_TEXT_KINDS = "SU"


@lru_cache(maxsize=256)
def dtype_spec(dtype: np.dtype[Any]) -> Spec:
    """Return what stands for a dtype on the wire; ``read_dtype`` of it is equal to the dtype.

    Raises:
        EncodeError: dtype object, extended floats, and whatever numpy would not rebuild as an equal dtype.
    """
    if dtype.hasobject:
        raise EncodeError(
            f"dtype {dtype} holds Python objects, which travel only as pickles and are refused: "
            "convert the array to a number or string dtype, or send a list"
        )
    if dtype.kind in "fc" and dtype.char in "gG":
        raise EncodeError(
            f"dtype {dtype} differs between machines: convert it, astype('float64') or astype('complex128')"
        )
    try:
        spec = _written(dtype)
        if read_dtype(spec) == dtype:
            return spec
    except WireError:
        pass
    raise EncodeError(
        f"dtype {dtype!r} cannot be rebuilt equal at the receiver: view the array as integers, or convert it"
    )


def _written(dtype: np.dtype[Any]) -> Spec:
    if dtype.fields is None:
        return str(dtype.str)
    fields = []
    for name in dtype.names or ():
        inner, offset, *title = dtype.fields[name]
        base, subshape = inner.subdtype or (inner, ())
        fields.append([name, title[0] if title else None, offset, _written(base), list(subshape)])
    return [dtype.itemsize, fields]


def read_dtype(spec: object, nesting: int = 0) -> np.dtype[Any]:
    """Return the dtype of a spec from the wire.

    Raises:
        WireError: with reason ``dtype``; dtype object cannot even be written in this grammar.
    """
    if type(spec) is str:
        return _plain(spec)
    if type(spec) is not list or len(spec) != 2 or nesting >= MAX_NESTING:
        raise WireError("dtype", "a dtype is neither a known text nor a structure of at most 8 levels")
    itemsize, fields = spec
    _require_int(itemsize, 1, MAX_ITEMSIZE)
    if type(fields) is not list or not 1 <= len(fields) <= MAX_FIELDS:
        raise WireError("dtype", f"a structured dtype has 1 to {MAX_FIELDS} fields")
    names, titles, offsets, formats = zip(*(_field(field, itemsize, nesting) for field in fields), strict=True)
    layout: dict[str, Any] = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
    if any(title is not None for title in titles):
        layout["titles"] = titles
    try:
        dtype: np.dtype[Any] = np.dtype(cast(Any, layout))
    except Exception as error:  # noqa: BLE001  # numpy raises several kinds on doubled names and the like
        raise WireError("dtype", f"numpy refuses a structured dtype: {type(error).__name__}") from None
    return dtype


@lru_cache(maxsize=1024)
def _plain(text: str) -> np.dtype[Any]:
    if not _PLAIN.fullmatch(text):
        raise WireError("dtype", f"dtype {text[:40]!r} is not one that travels")
    return np.dtype(text)


def _field(field: object, itemsize: int, nesting: int) -> tuple[str, str | None, int, Any]:
    if type(field) is not list or len(field) != 5:
        raise WireError("dtype", "a field is [name, title, offset, dtype, subshape]")
    name, title, offset, spec, subshape = field
    if type(name) is not str or not name or type(title) not in (str, type(None)):
        raise WireError("dtype", "a field's name and title are texts")
    inner = read_dtype(spec, nesting + 1)
    shape, elements = read_shape(subshape)
    if not elements and shape:
        raise WireError("dtype", "a subarray has a dimension of zero")
    size = elements * inner.itemsize
    _require_int(offset, 0, itemsize - size)
    return name, title, offset, np.dtype((inner, shape)) if shape else inner


def _require_int(value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise WireError("dtype", "a size or offset in a structured dtype is out of range")


def read_shape(shape: object, itemsize: int = 1, max_bytes: int = MAX_ITEMSIZE) -> tuple[tuple[int, ...], int]:
    """Return a shape from the wire as a tuple, and its number of elements as an unbounded Python int.

    Args:
        shape: what should be a list of at most ``MAX_DIMS`` ints, each at least 0.
        itemsize: bytes of one element.
        max_bytes: limit on the bytes that the dimensions other than zero span, because numpy multiplies those.

    Raises:
        WireError: with reason ``shape`` or ``limits``.
    """
    if type(shape) is not list or len(shape) > MAX_DIMS:
        raise WireError("shape", f"a shape is a list of at most {MAX_DIMS} dimensions")
    span = itemsize
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise WireError("shape", "a dimension is not a whole number of at least 0")
        span *= dimension or 1
        if span > max_bytes:
            raise WireError("limits", f"an array spans more than {max_bytes} bytes")
    return tuple(shape), prod(shape)


def scalar_stackable(dtype: np.dtype[Any]) -> bool:
    """Tell whether numpy scalars of this dtype travel as an array; texts do not: each has a dtype of its own length."""
    return dtype.kind not in _TEXT_KINDS
