"""Owns how datapoints that came in blocks become a batch: column by column, with one copy for each block.

What a batch costs is then the copying, and hardly grows with the number of its datapoints. The result is what stacking
the datapoints one by one makes of them, or is left to that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

import numpy as np

from dfserve.dataflow.items import how_far_up
from dfserve.dataflow.stacking import NUMBERS, stack
from dfserve.wire.arrays import blank_array
from dfserve.wire.components import Components, Stack
from dfserve.wire.rows import DICTS, Rows

Pieces = list[Sequence[Any]]  # consecutive datapoints: slices of blocks, or lists
Part = tuple[Components, int, int]  # one component of a slice of a block


def drawing(ds: Any, size: int) -> Iterator[Pieces]:
    """Start a pass over ``ds`` that takes ``size`` datapoints at a time: fewer in the last piece, none after it."""
    if draws(ds):
        drawn: Iterator[Pieces] = ds.draws(size)
        return drawn
    return drawn_singly(iter(ds), size)


def drawn_singly(datapoints: Iterator[Any], size: int) -> Iterator[Pieces]:
    """Return what `drawing` does of datapoints that come one by one."""
    return ([list(islice(datapoints, size))] for _ in count())


def draws(ds: Any) -> bool:
    """Tell whether a source has its datapoints in blocks.

    It says so by the methods ``draws(size)``, which returns an iterator as `drawing` does, and ``expect_draws(size)``,
    by which it hears of the size beforehand. A subclass with another ``__iter__`` has to define ``draws`` anew, for it
    is another pass.
    """
    cls = type(ds)
    return hasattr(cls, "draws") and how_far_up(cls, "draws") <= how_far_up(cls, "__iter__")


def stacked_by_column(pieces: Pieces) -> Any:
    """Return the batch, a list or a dict of arrays; None if the datapoints must be looked at one by one.

    Raises:
        DatapointError: as stacking them one by one.
    """
    rows = [piece for piece in pieces if isinstance(piece, Rows)]
    if len(rows) != len(pieces) or not rows:
        return None
    first = rows[0].block
    width = len(first.columns)
    if not width or any(
        row.block.kind != first.kind or row.block.keys != first.keys or len(row.block.columns) != width for row in rows
    ):
        return None
    names: Sequence[Hashable] = first.keys if first.kind == DICTS else range(width)
    made = [
        _component([(row.block.columns[place], row.start, row.stop) for row in rows], names[place])
        for place in range(width)
    ]
    return dict(zip(names, made, strict=True)) if first.kind == DICTS else made


def _component(parts: list[Part], name: Hashable) -> np.ndarray[Any, Any]:
    first = parts[0][0]
    if isinstance(first, Stack) and _is_plain(first.dtype):
        like = (first.dtype, first.shape[1:])
        if all(isinstance(column, Stack) and (column.dtype, column.shape[1:]) == like for column, _, _ in parts):
            return _joined([(column.array, start, stop) for column, start, stop in parts if isinstance(column, Stack)])
    return stack(list(chain.from_iterable(column.between(start, stop) for column, start, stop in parts)), name)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in NUMBERS and dtype.isnative  # numpy.array() would turn another order of bytes


def _joined(parts: list[tuple[np.ndarray[Any, Any], int, int]]) -> np.ndarray[Any, Any]:
    """Return the rows of several arrays in one, of memory of its own."""
    first = parts[0][0]
    length = sum(stop - start for _, start, stop in parts)
    joined = blank_array((length, *first.shape[1:]), first.dtype)
    if joined.nbytes:
        _copy(_bytes(joined), [_bytes(array[start:stop]) for array, start, stop in parts])
    return joined


def _copy(target: memoryview, parts: list[memoryview]) -> None:
    """Copy memory. NumPy would let go of the GIL for each part, and wait 5 ms to have it back if a thread is busy."""
    place = 0
    for part in parts:
        target[place : place + len(part)] = part
        place += len(part)


def _bytes(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
