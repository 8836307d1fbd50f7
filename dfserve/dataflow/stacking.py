"""Owns how the values of one component become one array, and the refusal of values that no array holds unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from dfserve.errors import DatapointError
from dfserve.wire.arrays import RECYCLED, blank_array

NUMBERS = "biufc"  # numpy's kinds of dtype that numpy stacks as they are
LARGE = 16 << 10  # bytes of one array; stack() looks at each, which for smaller ones costs more than fresh memory

_Array = np.ndarray[Any, np.dtype[Any]]


def stack(values: Sequence[Any], name: Hashable) -> _Array:
    """Stack values of one kind along a new first axis.

    Args:
        values: at least one; all str, all bytes, all bool, all int, all float, or all arrays (ndarrays, numpy scalars
            and what has ``__array__``) of one shape and dtype.
        name: the component's key or position, for the error.

    Returns:
        A C-ordered ndarray of shape (len(values), *shape of one). Its dtype: that of the arrays; int64 for int, float32
        for float, bool for bool; as wide as the longest for str and bytes.

    Raises:
        DatapointError: kinds, dtypes or shapes differ, or a value does not fit into the dtype.
    """
    types = set(map(type, values))
    if len(types) == 1 and (stacker := _PLAIN.get(*types)) is not None:
        return stacker(values, name)
    if types <= {list} or types <= {tuple}:
        _refuse_lists(values, name)
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1 or None in kinds:
        _refuse(name, "types", [type(value).__name__ for value in values], "convert them in a map")
    return _STACKERS[kinds.pop()](values, name)


def _kind(value: Any) -> str | None:
    # The order matters: numpy's str_ is a str, its float64 a float, and Python's bool an int.
    if isinstance(value, str):
        return "str"
    if isinstance(value, bytes):
        return "bytes"
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return "array"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else None


def _stack_arrays(values: Sequence[Any], name: Hashable) -> _Array:
    arrays = [np.asarray(value) for value in values]
    first = arrays[0]
    shape, dtype = first.shape, first.dtype
    if dtype.kind in NUMBERS and all(
        [array.dtype is dtype and array.shape == shape for array in arrays]  # noqa: C419  # a generator takes longer
    ):
        return _stack_numbers(arrays)
    if any(array.shape != first.shape for array in arrays):
        _refuse(name, "shapes", [str(array.shape) for array in arrays], "resize or pad them in a map")
    # Text of several widths is one dtype to its user; the widest holds it all.
    widest = max((array.dtype for array in arrays), key=lambda dtype: dtype.itemsize)
    dtype = widest if first.dtype.kind in "US" else first.dtype
    if any(array.dtype != dtype and not (dtype.kind in "US" and array.dtype.kind == dtype.kind) for array in arrays):
        _refuse(name, "dtypes", [str(array.dtype) for array in arrays], "convert them in a map: x.astype(dtype)")
    # Filled row by row: always C-ordered, whatever the order of the parts, and never an array of objects by accident.
    stacked = np.empty((len(arrays), *first.shape), dtype)
    for row, array in enumerate(arrays):
        stacked[row] = array
    return stacked


def _stack_numbers(arrays: list[_Array]) -> _Array:
    first = arrays[0]
    if first.nbytes < LARGE or len(arrays) * first.nbytes < RECYCLED or not first.dtype.isnative:
        return np.array(arrays, order="C")
    stacked = blank_array((len(arrays), *first.shape), first.dtype)
    np.stack(arrays, out=stacked)
    return stacked


def _stack_ints(values: Sequence[Any], name: Hashable) -> _Array:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        largest = max(values, key=abs)
        raise DatapointError(
            f"BatchData cannot stack component {name!r}: the int {largest} does not fit into int64; convert it in a"
            " map, e.g. to numpy.uint64 or str, or use use_list=True"
        ) from error


def _stack_floats(values: Sequence[Any], name: Hashable) -> _Array:
    wide = np.array(values, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    lost = np.isinf(narrow) & np.isfinite(wide)
    if lost.any():
        raise DatapointError(
            f"BatchData cannot stack component {name!r}: the float {wide[lost][0]} does not fit into float32; convert"
            " it in a map to numpy.float64, or use use_list=True"
        )
    return narrow


def _stack_bools(values: Sequence[Any], name: Hashable) -> _Array:  # noqa: ARG001 (the stackers share one signature)
    return np.array(values, np.bool_)


def _stack_text(values: Sequence[Any], name: Hashable) -> _Array:
    nul = "\0" if isinstance(values[0], str) else b"\0"
    for value in values:
        if value.endswith(nul):
            raise DatapointError(
                f"BatchData cannot stack component {name!r}: numpy drops the NUL that ends {value[-20:]!r}; use"
                " use_list=True, or numpy.frombuffer(value, 'uint8') in a map"
            )
    return np.array(values)


_STACKERS: dict[str | None, Callable[[Sequence[Any], Hashable], _Array]] = {
    "array": _stack_arrays,
    "int": _stack_ints,
    "float": _stack_floats,
    "bool": _stack_bools,
    "str": _stack_text,
    "bytes": _stack_text,
}


# What a single type of values says of their kind. The order of _kind's questions does not matter to these.
_PLAIN: dict[type, Callable[[Sequence[Any], Hashable], _Array]] = {
    np.ndarray: _stack_arrays,
    int: _stack_ints,
    float: _stack_floats,
    bool: _stack_bools,
    str: _stack_text,
    bytes: _stack_text,
}


def _refuse(name: Hashable, what: str, found: list[str], remedy: str) -> None:
    """Raise the error for values that differ: how many there are of each kind, and where the first other one is."""
    counts = ", ".join(f"{kind} x {count}" for kind, count in Counter(found).most_common(5))
    other = next((place for place, kind in enumerate(found) if kind != found[0]), 0)
    differing = f" (the first: {found[0]}; datapoint {other} of the batch: {found[other]})" if other else ""
    raise DatapointError(
        f"BatchData cannot stack component {name!r} of {len(found)} datapoints. Its {what}: {counts}{differing}. To"
        f" keep them as they are use use_list=True; else {remedy}"
    )


def _refuse_lists(values: Sequence[Any], name: Hashable) -> None:
    """Raise the error for lists, or tuples: what is not stacked even where all have one length."""
    lengths = [f"length {len(value)}" for value in values]
    kind = f"{type(values[0]).__name__}s"
    if len(set(lengths)) > 1:
        what = f"values are {kind} of different lengths, which cannot be stacked"
        _refuse(name, what, lengths, "pad or cut them in a map to arrays of one length: numpy.array(x)")
    _refuse(name, f"values are {kind}, which are not stacked", lengths, "make arrays of them in a map: numpy.array(x)")
