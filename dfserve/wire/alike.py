"""Owns what a lane does with one component: see that a value is like the first one, and copy or keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import is_
from typing import Any

from dfserve.wire.arrays import Array
from dfserve.wire.columns import StackColumn

# Bytes. Up to here numpy's own assignment takes twice as long as a memoryview's, which holds the interpreter's lock.
SMALL_ARRAY = 64 << 10
NUMBER_BYTES = 9  # of a packed number, at most
LOWEST, HIGHEST = -(1 << 63), (1 << 64) - 1  # the integers that msgpack has
TEXT_BYTES = 256  # so many and four times those of the first text: longer ones are left to the builder

Write = Callable[[Any, int], None]  # of one component: a value and its row, counted from the lane's first


class Unlike(Exception):  # noqa: N818  # it never leaves a lane
    """A value that is not like the first."""


def packed_bytes(value: Any) -> int:
    """Return how many bytes a value like this one has in the body, at most; 0: such values are left to the builder."""
    kind = type(value)
    if kind is int:
        return NUMBER_BYTES if LOWEST <= value <= HIGHEST else 0
    if kind is float or kind is bool or value is None:
        return NUMBER_BYTES
    if kind is bytes or (kind is str and value.isascii()):
        return TEXT_BYTES + 4 * len(value)
    return 0


def is_small(array: Any) -> bool:
    """Tell whether a memoryview copies arrays like this one: of one dimension, numbers, and short."""
    dtype = array.dtype
    return array.ndim == 1 and dtype.kind in "biuf" and dtype.isnative and 0 < array.nbytes <= SMALL_ARRAY


def memory_of(column: StackColumn, row: int) -> memoryview:
    """Return the rows from ``row`` on, end to end. What is assigned to a part of it has the part's dtype and length."""
    return column.stack[row:].reshape(-1).data


def slices_of(length: int, rows: int) -> tuple[slice, ...]:
    return _ready_slices(length, 1 << (rows - 1).bit_length())


@lru_cache(maxsize=16)  # of 1024 slices at most, which is 150 us to make, 150 KB to keep
def _ready_slices(length: int, rows: int) -> tuple[slice, ...]:
    return tuple(slice(length * row, length * (row + 1)) for row in range(rows))


def values_under(keys: list[Any]) -> Callable[[Any], Any]:
    def values(datapoint: Any) -> Any:
        if not all(map(is_, datapoint, keys)):  # equal ones may be of other types
            raise Unlike
        return datapoint.values()

    return values


def small_writer(of_array: type, memory: Any, slices: Sequence[slice]) -> Write:
    def write(value: Any, place: int) -> None:
        if type(value) is not of_array:
            raise Unlike
        memory[slices[place]] = value

    return write


def array_writer(first: Any, stack: Array) -> Write:
    of_array, dtype, shape = type(first), first.dtype, first.shape

    def write(value: Any, place: int) -> None:
        if type(value) is not of_array or value.shape != shape:
            raise Unlike
        if value.dtype is not dtype and value.dtype != dtype:
            raise Unlike
        stack[place] = value

    return write


def scalar_writer(of_scalar: type, stack: Array) -> Write:
    def write(value: Any, place: int) -> None:
        if type(value) is not of_scalar:
            raise Unlike
        stack[place] = value

    return write


def keeper(keep: Callable[[Any], None], first: Any) -> Write:
    """Return what keeps values like the first: of its type, and no longer than `packed_bytes` says."""
    kind = type(first)
    if kind is int:
        return _int_keeper(keep)
    return _text_keeper(keep, first) if kind in (str, bytes) else _constant_keeper(keep, kind)


def _int_keeper(keep: Callable[[Any], None]) -> Write:
    def write(value: Any, _place: int) -> None:
        if type(value) is not int or value < LOWEST or value > HIGHEST:
            raise Unlike
        keep(value)

    return write


def _text_keeper(keep: Callable[[Any], None], first: str | bytes) -> Write:
    kind, most = type(first), TEXT_BYTES + 4 * len(first) - NUMBER_BYTES
    is_str = kind is str

    def write(value: Any, _place: int) -> None:
        # Others than ASCII take more bytes than characters, and some cannot be packed with the rest.
        if type(value) is not kind or len(value) > most or (is_str and not value.isascii()):
            raise Unlike
        keep(value)

    return write


def _constant_keeper(keep: Callable[[Any], None], kind: type) -> Write:
    """For types whose values all take the same bytes, or nearly."""

    def write(value: Any, _place: int) -> None:
        if type(value) is not kind:
            raise Unlike
        keep(value)

    return write
