"""Owns the short way into a block under construction, for datapoints that are exactly like one that is in it.

Most datapoints are like the one before: the same kind, arrays of the same dtype and shape, numbers of the same type.
For those a few comparisons do, then one copy for each array; numbers and short texts, which nobody can change, are kept
and packed all at once in the end. Whatever else comes is left to the builder, which knows all that can travel.

A lane is used by one thread, without a lock, while another may end it: taking a place and noting that a row is whole
are one call in C each, so the one who ends it takes the places that are left, and waits for the row that is begun.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from dfserve.wire.alike import (
    HIGHEST,
    LOWEST,
    Write,
    array_writer,
    is_small,
    keeper,
    memory_of,
    packed_bytes,
    scalar_writer,
    slices_of,
    small_writer,
    values_under,
)
from dfserve.wire.columns import Column, ScalarColumn, StackColumn, ValueColumn

MOST_ROWS = 1024  # of one lane: what is prepared for them takes 150 KB
# Fewer are not worth a lane: making one takes as long as it saves with 40 datapoints, when the caches are cold.
LEAST_ROWS = 64
STUCK = 10.0  # seconds for a row to become whole; copying the largest array takes a tenth of one
LOOK = 1e-4  # seconds between looks; a row of a megabyte takes as long as this

Take = Callable[[Any], bool]


class Lane:
    """Takes some rows.

    Args:
        datapoint: one that is in the block already.
        columns: the block's, whose rows before ``row`` are filled.
        row: the first to be written.
        rows: how many are taken at most.

    Attributes:
        rows: how many it takes at most.
        array_bytes: of one row.
        take: takes a datapoint, copied, and returns True; or returns False and has done nothing.
    """

    def __init__(self, datapoint: Any, columns: Sequence[Column], row: int, rows: int) -> None:
        values = _values(datapoint)
        self.rows = rows
        self.array_bytes = sum(column.size for column in columns if isinstance(column, StackColumn))
        self._places: deque[Any] = deque()  # of the rows that are not begun; ended from the other side
        self._whole: list[Any] = []  # an entry for each row that is complete
        self._left: list[bool] = []  # not empty: the thread that takes is in no row, and begins none
        self._lists: list[tuple[ValueColumn, list[Any]]] = []
        if _is_pair(columns, values):
            self.take = self._pair(datapoint, values, columns, row)
        else:
            self.take = self._general(datapoint, values, columns, row)

    @property
    def count(self) -> int:
        """Rows taken so far."""
        return len(self._whole)

    def end(self) -> tuple[int, list[tuple[ValueColumn, list[Any]]]]:
        """Take no more; return how many rows were taken, and what belongs into the columns of values.

        May be called by another thread than the one that takes, which may be in the middle of a row.

        Raises:
            TimeoutError: the row that was begun was not completed within ten seconds.
        """
        unused = 0
        with suppress(IndexError):
            while True:
                self._places.pop()
                unused += 1
        begun, looks = self.rows - unused, 0  # looks, not a clock: the process may be stopped just here, and go on
        while len(self._whole) < begun and not self._left:
            if looks * LOOK > STUCK:
                raise TimeoutError(f"the pipeline's thread has begun to copy a datapoint {STUCK:.0f} s ago, and hangs")
            time.sleep(LOOK)
            looks += 1
        rows = len(self._whole)
        return rows, [(column, values[:rows]) for column, values in self._lists]

    # ------------------------------------------------------------------ any datapoint

    def _general(self, datapoint: Any, values: list[Any], columns: Sequence[Column], row: int) -> Take:
        self._places += range(self.rows)
        kind, width = type(datapoint), len(columns)
        entries = values_under(list(datapoint)) if kind is dict else iter
        writes = [self._writer(column, value, row) for column, value in zip(columns, values, strict=True)]
        pop, whole, leave = self._places.popleft, self._whole.append, _leaving(self._places, self._left)

        def take(datapoint: Any) -> bool:
            if type(datapoint) is not kind or len(datapoint) != width:
                return False
            try:
                place = pop()
                for write, value in zip(writes, entries(datapoint)):  # noqa: B905  # of one length; and hot
                    write(value, place)
                whole(place)
            except BaseException as error:  # noqa: BLE001  # whatever it is
                return leave(error)
            return True

        return take

    def _writer(self, column: Column, first: Any, row: int) -> Write:
        if isinstance(column, ScalarColumn):
            return scalar_writer(type(first), column.stack[row:])
        if isinstance(column, StackColumn):
            if is_small(first):
                return small_writer(type(first), memory_of(column, row), slices_of(len(first), self.rows))
            return array_writer(first, column.stack[row:])
        assert isinstance(column, ValueColumn), "a column of arrays of several shapes has no lane"
        kept: list[Any] = []
        self._lists.append((column, kept))
        return keeper(kept.append, first)

    # ------------------------------------------------------------------ a small array and a number

    def _pair(self, datapoint: Any, values: list[Any], columns: Sequence[Column], row: int) -> Take:
        """Make what is done for each component into one function, for the case where it takes the longest."""
        kind, of_array, of_number = type(datapoint), type(values[0]), type(values[1])
        stack, numbers = columns
        assert isinstance(stack, StackColumn)
        assert isinstance(numbers, ValueColumn)
        memory: Any = memory_of(stack, row)
        self._places += slices_of(len(values[0]), self.rows)[: self.rows]
        self._lists.append((numbers, self._whole))
        low, high = (LOWEST, HIGHEST) if of_number is int else (-inf, inf)
        pop, whole, leave = self._places.popleft, self._whole.append, _leaving(self._places, self._left)
        keyed = kind is dict
        first, second = datapoint if keyed else (None, None)

        def take(datapoint: Any) -> bool:
            if type(datapoint) is not kind:
                return False
            try:
                if keyed:
                    one, other = datapoint
                    if one is not first or other is not second:
                        return False
                    datapoint = datapoint.values()
                array, number = datapoint
                if type(array) is not of_array or type(number) is not of_number or number < low or number > high:
                    return False
                memory[pop()] = array  # raises an error if it has another dtype or shape
                whole(number)
            except BaseException as error:  # noqa: BLE001  # whatever it is
                return leave(error)
            return True

        return take


def _leaving(places: deque[Any], left: list[bool]) -> Callable[[BaseException], bool]:
    """Return what is called with an error in a row. (No method: a lane in a cycle would hold the block's memory.)"""

    def leave(error: BaseException) -> bool:
        places.clear()
        left.append(True)
        if not isinstance(error, Exception):
            raise error  # Ctrl-C
        return False  # the builder meets the error again, and knows what it means

    return leave


def lane_of(
    datapoint: Any, columns: Sequence[Column], row: int, most_rows: int, most_bytes: int, most_body: int
) -> Lane | None:
    """Return a lane for datapoints like this one, or None if it is not of a kind that has one, or there is no room.

    Args:
        datapoint: one that is in the block.
        columns: the block's.
        row: how many rows they have.
        most_rows: how many more it may take.
        most_bytes: of these; room for one more is left, so that the block is not full.
        most_body: bytes of these in the body.
    """
    values = _values(datapoint)
    nbytes = body = 0
    rows = min(most_rows, MOST_ROWS)
    for column, value in zip(columns, values, strict=True):
        if isinstance(column, ValueColumn):
            most = packed_bytes(value)
            if not most:
                return None
            nbytes, body = nbytes + most, body + most
        elif isinstance(column, StackColumn) and not column.ragged and column.told_by_type:
            nbytes, rows = nbytes + column.size, min(rows, len(column.stack) - row)
        else:
            return None
    if not nbytes:
        return None
    rows = min(rows, most_bytes // nbytes - 1, most_body // body if body else rows)
    return Lane(datapoint, columns, row, rows) if rows >= LEAST_ROWS else None


def _values(datapoint: Any) -> list[Any]:
    return list(datapoint.values() if type(datapoint) is dict else datapoint)


def _is_pair(columns: Sequence[Column], values: list[Any]) -> bool:
    return (
        len(columns) == 2
        and type(columns[0]) is StackColumn
        and is_small(values[0])
        and isinstance(columns[1], ValueColumn)
        and type(values[1]) in (int, float, bool)
    )
