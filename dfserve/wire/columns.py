"""Owns the columns of a block under construction: one for each component, filled row by row.

A column of arrays of one shape is a *stack*: one buffer of shape (rows, *shape). When another shape comes it turns
*ragged*: one buffer in which each row starts at a multiple of 64 bytes. Numpy scalars make a stack too. All else is a
column of *values*, packed at once so that a list which the pipeline changes later is not changed here.

Every column has ``put(value, row, room) -> int``, which copies the value as row ``row`` and returns the bytes that it
took, or ``REFUSED`` if it belongs into another block (it raises EncodeError only if it could go into none), and
``cut(rows)``, which takes back the rows from ``rows`` on. ``closed(rows, number)`` returns its description in the body,
as msgpack, and its frame, which gets that number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.wire.arrays import Array, blank, is_array, supplied
from dfserve.wire.dtypes import dtype_spec, scalar_stackable
from dfserve.wire.large_copies import LARGE, copy_large
from dfserve.wire.placement import SMALLEST
from dfserve.wire.values import PLAIN_TYPES, ValueWriter, check_array

REFUSED = -1
ALIGNMENT = 64  # bytes; a cache line, and what vector code asks for
COLUMN_BYTES = 16  # what the headers in a column's description take, at most
VALUES, STACK, RAGGED = range(3)  # the first entry of a column's description in the body


def aligned(offset: int) -> int:
    """Return the first multiple of ``ALIGNMENT`` that is not below the offset."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


class Buffer:
    """uint8 memory that grows by doubling and gives back what it did not need.

    Args:
        dtype: of the arrays that go into it.
        nbytes: first size; memory that is not written to costs nothing but addresses.
        writer: of the block, which knows what it may grow to, and where memory comes from.
    """

    def __init__(self, dtype: np.dtype[Any], nbytes: int, writer: ValueWriter) -> None:
        self._dtype = dtype
        self._most = writer.limits.max_frame
        self._supply = writer.supply
        self.raw = self._memory(min(nbytes, self._most))

    def _memory(self, nbytes: int) -> Array:
        raw = supplied(nbytes, self._dtype, self._supply)
        self._supplied = raw is not None
        return blank(nbytes, self._dtype) if raw is None else raw

    def reserve(self, needed: int, used: int) -> bool:
        """Make room for ``needed`` bytes, keeping the first ``used``; return False if that passes the limit."""
        if needed > self._most:
            return False
        if needed > len(self.raw):
            raw = self._memory(min(max(needed, 2 * len(self.raw)), self._most))
            raw[:used] = self.raw[:used]
            self.raw = raw
        return True

    def frame(self, used: int) -> memoryview:
        """Return the first ``used`` bytes as a frame that does not hold on to more than twice its size.

        Supplied memory is worth more than that: what it is shared with need not copy it.
        """
        if 2 * used < len(self.raw) and not (self._supplied and used >= SMALLEST):
            small: memoryview = self.raw[:used].copy().data
            return small
        whole: memoryview = self.raw.data
        part: memoryview = whole[:used]  # of the lease itself: a numpy view of it would not hold it, see Recycler
        return part


class ValueColumn:
    """Values that travel in the body.

    Args:
        writer: of the block.
        mixed: take arrays and numpy scalars too, each written as one inside another value is.
    """

    ragged = False

    def __init__(self, writer: ValueWriter, mixed: bool = False) -> None:
        self._writer = writer
        self._mixed = mixed
        self._pack = writer.pack
        self._fast = writer.fast
        self._packed: list[bytes] = []  # of each row after those of `_bulk`
        self._bulk: list[bytes] = []
        self._bulk_rows = 0

    def put(self, value: object, _row: int, room: int) -> int:
        """Pack one value. A bare array or numpy scalar is refused, unless mixed: its column is of another kind."""
        if type(value) in PLAIN_TYPES:
            try:
                packed = self._fast(value)
            except ValueError:
                packed = self._pack(value)
            size = len(packed)
        else:
            if not self._mixed and (is_array(value) or is_stackable(value)):
                return REFUSED
            frames = self._writer.frames
            before = len(frames)
            packed = self._pack(value)
            size = len(packed) + sum(map(len, frames[before:]))
        if size > room:
            return REFUSED
        self._packed.append(packed)
        return size

    def cut(self, rows: int) -> None:
        """Take back the rows from ``rows`` on, but not the writer's frames, which columns share."""
        del self._packed[max(0, rows - self._bulk_rows) :]

    def extend(self, values: list[Any]) -> int:
        """Pack many values, each of one of ``PLAIN_TYPES`` and such that ``ValueWriter.fast`` packs it; not cut again.

        Returns the bytes that they took.
        """
        packed = self._fast(values)
        packed = packed[1 if len(values) < 16 else 3 if len(values) < 1 << 16 else 5 :]  # without the list's header
        self._bulk += self._packed
        self._bulk.append(packed)
        self._bulk_rows += len(self._packed) + len(values)
        self._packed.clear()
        return len(packed)

    def body_bytes(self, rows: int) -> int:
        """Return the bytes that the column takes in the body, at most."""
        singly = self._packed[: max(0, rows - self._bulk_rows)]
        return COLUMN_BYTES + sum(map(len, self._bulk)) + sum(map(len, singly))

    def closed(self, rows: int, _number: int) -> tuple[bytes, None]:
        """Return the description; the values are part of it, and there is no frame."""
        return b"".join([array_header(2), self._fast(VALUES), array_header(rows), *self._bulk, *self._packed]), None


def array_header(length: int) -> bytes:
    """Return the msgpack header of an array whose entries are packed already."""
    return b"\xdd" + length.to_bytes(4, "big")


def is_stackable(value: object) -> bool:
    """Tell whether a value is a numpy scalar that travels in a stack."""
    return isinstance(value, np.generic) and scalar_stackable(value.dtype)


class RaggedColumn:
    """Arrays of one dtype and any shapes.

    Args:
        dtype: of the arrays.
        nbytes: first size of the buffer.
        writer: of the block.
    """

    ragged = True

    def __init__(self, dtype: np.dtype[Any], nbytes: int, writer: ValueWriter) -> None:
        self._spec = dtype_spec(dtype)
        self._dtype = dtype
        self._writer = writer
        self._buffer = Buffer(dtype, nbytes, writer)
        self._shapes: list[tuple[int, ...]] = []
        self._ends = [0]

    def put(self, value: Any, _row: int, room: int) -> int:
        """Copy one array."""
        if not is_array(value) or value.dtype != self._dtype:
            return REFUSED
        check_array(value, self._writer.limits)
        used = self._ends[-1]
        start = aligned(used)
        end: int = start + value.nbytes
        taken: int = end - used + 3 + 5 * value.ndim  # the shape goes into the body
        if taken > room or not self._buffer.reserve(end, used):
            return REFUSED
        raw = self._buffer.raw
        raw[used:start] = 0
        np.ndarray(value.shape, self._dtype, buffer=raw.data, offset=start)[...] = value
        self._ends.append(end)
        self._shapes.append(value.shape)
        return taken

    def cut(self, rows: int) -> None:
        """Take back the rows from ``rows`` on."""
        del self._ends[rows + 1 :], self._shapes[rows:]

    def body_bytes(self, rows: int) -> int:
        """Return the bytes that the column takes in the body, at most."""
        return COLUMN_BYTES + len(self._writer.describe([self._spec, self._shapes[:rows]]))

    def closed(self, _rows: int, number: int) -> tuple[bytes, memoryview]:
        """Return the description and the frame."""
        return self._writer.describe([RAGGED, self._spec, self._shapes, number]), self._buffer.frame(self._ends[-1])


class StackColumn:
    """Arrays of one dtype and shape; it turns ragged when another shape comes.

    Args:
        first: the first array, or the first numpy scalar.
        rows: rows to make room for at first.
        writer: of the block.

    Raises:
        EncodeError: the array cannot travel.
    """

    _scalars = False  # what comes back from an array of shape (): arrays, or numpy scalars
    told_by_type = True  # whether a value's type, and an array's dtype and shape, tell that it belongs here

    def __init__(self, first: Any, rows: int, writer: ValueWriter) -> None:
        self._spec = dtype_spec(first.dtype)
        check_array(first, writer.limits)
        self._dtype = first.dtype
        self._shape: tuple[int, ...] = first.shape
        self._size: int = first.nbytes
        self._writer = writer
        self._buffer = Buffer(first.dtype, rows * self._size, writer)
        self._rows = self._typed(rows)
        self._ragged: RaggedColumn | None = None

    @property
    def ragged(self) -> bool:
        """Whether arrays of several shapes came."""
        return self._ragged is not None

    @property
    def stack(self) -> Array:
        """The memory of the rows, of shape (rows that there is memory for, *shape); until `put` is called again."""
        return self._rows

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self._size

    def put(self, value: Any, row: int, room: int) -> int:
        """Copy one array."""
        if type(value) is not np.ndarray and not is_array(value):
            return REFUSED
        dtype = value.dtype
        if dtype is not self._dtype and dtype != self._dtype:
            return REFUSED
        if self._ragged is not None or value.shape != self._shape:
            return self._put_ragged(value, row, room)
        return self._write(value, row, room)

    def _write(self, value: Any, row: int, room: int) -> int:
        size = self._size
        if size > room:
            return REFUSED
        if row >= len(self._rows):
            if not self._buffer.reserve((row + 1) * size, row * size):
                return REFUSED
            self._rows = self._typed(2 * row + 1)
        if size < LARGE:
            self._rows[row] = value
        else:
            copy_large(self._rows[row, ...], value)
        return size

    def _typed(self, rows: int) -> Array:
        raw = self._buffer.raw
        rows = len(raw) // self._size if self._size else rows  # arrays without elements: as many as asked
        # frombuffer() refers to the memoryview, which holds the lease: a thread that copies may outlive this column.
        memory = np.frombuffer(raw.data, np.uint8) if len(raw) else raw
        typed: Array = np.ndarray((rows, *self._shape), self._dtype, buffer=memory)
        return typed

    def _put_ragged(self, value: Array, row: int, room: int) -> int:
        if self._ragged is None:
            if value.nbytes > room:
                return REFUSED
            turned = RaggedColumn(self._dtype, len(self._buffer.raw) + row * ALIGNMENT, self._writer)
            for index in range(row):
                if turned.put(self._rows[index, ...], index, self._writer.limits.max_frame) < 0:
                    return REFUSED
            self._ragged = turned
        return self._ragged.put(value, row, room)

    def cut(self, rows: int) -> None:
        """Take back the rows from ``rows`` on; in a stack the next ones are written over them."""
        if self._ragged is not None:
            self._ragged.cut(rows)

    def body_bytes(self, rows: int) -> int:
        """Return the bytes that the column takes in the body, at most."""
        return COLUMN_BYTES + len(self._described(0)) if self._ragged is None else self._ragged.body_bytes(rows)

    def closed(self, rows: int, number: int) -> tuple[bytes, memoryview]:
        """Return the description and the frame."""
        if self._ragged is not None:
            return self._ragged.closed(rows, number)
        return self._described(number), self._buffer.frame(rows * self._size)

    def _described(self, number: int) -> bytes:
        return self._writer.describe([STACK, self._spec, self._shape, number, self._scalars])


class ScalarColumn(StackColumn):
    """Numpy scalars of one dtype."""

    _scalars = True

    def __init__(self, first: Any, rows: int, writer: ValueWriter) -> None:
        super().__init__(first, rows, writer)
        self._type = type(first)
        self.told_by_type = first.dtype.kind not in "mMV"  # of these three the type does not tell the whole dtype

    def put(self, value: Any, row: int, room: int) -> int:
        """Copy one scalar."""
        if type(value) is not self._type or not (self.told_by_type or value.dtype == self._dtype):
            return REFUSED
        return self._write(value, row, room)


class LentColumn(StackColumn):
    """One array, whose own memory becomes the frame if it lies in C order: nobody may write to it until it is sent."""

    def __init__(self, first: Any, writer: ValueWriter) -> None:
        super().__init__(first, 0, writer)
        self._lent: Array | None = None

    def put(self, value: Any, row: int, room: int) -> int:
        """Borrow the first array; every other one belongs into another block."""
        if row or value.nbytes > room:
            return REFUSED
        self._lent = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return self._size

    def closed(self, _rows: int, number: int) -> tuple[bytes, memoryview]:
        """Return the description and the frame."""
        assert self._lent is not None, "a block is closed after its first datapoint"
        return self._described(number), self._lent.data


Column = ValueColumn | StackColumn | RaggedColumn
