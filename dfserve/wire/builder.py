"""Owns the sender's side of a block: collecting datapoints of one structure until they are worth a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfserve.errors import EncodeError
from dfserve.wire.arrays import Supply, is_array
from dfserve.wire.columns import (
    Column,
    LentColumn,
    RaggedColumn,
    ScalarColumn,
    StackColumn,
    ValueColumn,
    array_header,
    is_stackable,
)
from dfserve.wire.lane import LEAST_ROWS, Lane, Take, lane_of
from dfserve.wire.limits import DEFAULT_LIMITS, Limits
from dfserve.wire.refusals import called, not_a_datapoint
from dfserve.wire.values import INLINE_BYTES, ValueWriter, check_keys

Frame = bytes | memoryview
Datapoint = list[Any] | tuple[Any, ...] | dict[Any, Any]

KINDS: tuple[type, ...] = (list, tuple, dict)  # the index is what stands in the body
ANY_ROOM = 1 << 62  # bytes: the first datapoint of a block may have any size that the limits admit
HEAD_BYTES = 64  # what the body takes beyond its keys and columns, at most


@dataclass(frozen=True)
class EncodedBlock:
    """A block ready to be sent.

    Attributes:
        frames: the msgpack body, then buffers of uint8; nobody writes to their memory any more.
        count: datapoints in it.
        nbytes: bytes of all frames.
    """

    frames: list[Frame]
    count: int
    nbytes: int


class BlockBuilder:
    """Collects datapoints of one structure into a block, copying everything when it is added.

    The structure is: list, tuple or dict; the number of components; the keys and their order; and for each component
    whether it is an ndarray (of which dtype), a numpy scalar (of which dtype) or another value.

    Args:
        max_bytes: close the block before it passes this size. A single larger datapoint makes a block of its own.
        max_count: datapoints in a block at most, and never more than ``limits.max_count``.
        limits: what the receiver admits.
        lend: do not copy a datapoint's arrays: the block refers to them, has one datapoint, and is to be used up before
            the datapoint's owner goes on. For a sender that copies the frames itself, into memory that it shares.
        mixed: let a component be of other kinds in other datapoints. Every one travels as a value, which takes more
            bytes and time.
        rows: datapoints to make room for at first; 0: as many as ``max_bytes`` admits.
        supply: where the memory of large frames comes from, if it has some; the frames then are what keeps it.
        take_bytes: `take` does not bring a block past so many bytes; by default no further than ``max_bytes`` either.

    Attributes:
        take: the short way of `add`, for most datapoints that are exactly like the last one: True if it has copied the
            datapoint into the block, and the block is not full; else nothing was done, and `add` is to be called. Needs
            no lock against a thread that calls `close`, or looks at anything here; `add` does.
        full: whether another datapoint like the last one would not fit.
        max_bytes: as above; what is changed holds from the next block on.
    """

    def __init__(
        self,
        max_bytes: int = 1 << 20,
        max_count: int = 1024,
        limits: Limits = DEFAULT_LIMITS,
        *,
        lend: bool = False,
        mixed: bool = False,
        rows: int = 0,
        take_bytes: int = ANY_ROOM,
        supply: Supply | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self._max_count = 1 if lend else min(max_count, limits.max_count)
        self._lend = lend
        self._mixed = mixed
        self._rows = rows
        self._take_bytes = take_bytes
        self._limits = limits
        self._writer = ValueWriter(limits, supply)
        self._was_ragged: list[bool] = []  # the columns of the last block: the next one is likely to be the same
        self._clear()

    def _clear(self) -> None:
        self.take: Take = _nothing
        self._lane: Lane | None = None
        self._alike = True  # no datapoint was left by a lane
        self._count = 0
        self._nbytes = 0
        self.full = False
        self._max_bytes = self.max_bytes  # of this block
        self._kind: type = list
        self._keys: list[Any] = []
        self._key_types: list[type] = []
        self._packed_keys = b""
        self._writer.frames = []
        self._nested = 0  # frames of the writer that belong to the counted datapoints
        self._columns: list[Column] = []
        self._puts: list[Callable[[Any, int, int], int]] = []
        self._safe_bytes = 0  # a block of no more bytes is within all limits

    def add(self, datapoint: Datapoint) -> bool:
        """Copy a datapoint into the block; the caller may change its arrays at once.

        Returns:
            False if the block must be closed first, because the structure differs or a size would pass its limit: the
            block is as before and the datapoint is not in it. An empty block takes every datapoint that can travel.

        Raises:
            EncodeError: the datapoint can travel in no block; the message names the component. The block is as before.
        """
        if self.take(datapoint):
            return True
        self._end_lane()
        count = self._count
        if not count:
            self._open(datapoint)
        elif type(datapoint) is not self._kind or len(datapoint) != len(self._puts) or count >= self._max_count:
            return False
        left = room = self._max_bytes - self._nbytes if count else ANY_ROOM
        values = iter(datapoint)
        if type(datapoint) is dict:
            if not self._has_keys(datapoint):
                return False
            values = iter(datapoint.values())
        try:
            for put in self._puts:
                taken = put(next(values), count, left)
                if taken < 0:
                    return self._cut()
                left -= taken
        except BaseException as error:
            self._cut()
            if isinstance(error, EncodeError):
                raise _blamed(datapoint, len(list(values)), error) from None
            raise
        return self._counted(room - left) and self._begin_lane(datapoint, room - left)

    @property
    def count(self) -> int:
        """Datapoints in the block so far."""
        lane = self._lane
        return self._count if lane is None else self._count + lane.count

    @property
    def nbytes(self) -> int:
        """Bytes of the block so far, to within a few dozen. To look after each datapoint costs what `take` saves."""
        if self.count > self._count:
            self._end_lane()
        return self._nbytes

    def _begin_lane(self, datapoint: Datapoint, taken: int) -> bool:
        """Let `take` have datapoints like this one, which was just added, if they are of a kind that it can have."""
        if not self._alike or self.full:
            return True
        rows, nbytes = self._max_count - self._count - 1, min(self._max_bytes, self._take_bytes) - self._nbytes
        if nbytes >= LEAST_ROWS * taken:
            body = self._limits.max_body - self._body_bytes(self._count)
            self._lane = lane_of(datapoint, self._columns, self._count, rows, nbytes, body)
        if self._lane is not None:
            self.take = self._lane.take
        else:
            self._alike = False
        return True

    def _end_lane(self) -> None:
        lane = self._lane
        if lane is None:
            return
        rows, lists = lane.end()
        self.take, self._lane = _nothing, None
        self._alike = rows == lane.rows  # else the next datapoint is likely to be unlike the last, too
        self._count += rows
        self._nbytes += rows * lane.array_bytes + sum(column.extend(values) for column, values in lists)

    def _has_keys(self, datapoint: dict[Any, Any]) -> bool:
        # 1, 1.0 and True are equal as keys, so their types count too.
        return list(datapoint) == self._keys and list(map(type, datapoint)) == self._key_types

    def _counted(self, taken: int) -> bool:
        """Count the datapoint that is in the columns now, unless that passes the receiver's limits."""
        nbytes = self._nbytes + taken
        if nbytes > self._safe_bytes:
            passed = self._passed_limit()
            if passed and not self._count:
                self._cut()
                raise EncodeError(f"a datapoint passes what a message carries: {passed}")
            if passed:
                return self._cut()
        self._count += 1
        self._nbytes = nbytes
        self._nested = len(self._writer.frames)
        self.full = nbytes + taken > self._max_bytes or self._count >= self._max_count
        return True

    def _cut(self) -> bool:
        """Take back what was put after the last counted datapoint."""
        for column in self._columns:
            column.cut(self._count)
        del self._writer.frames[self._nested :]
        if not self._count:
            self._clear()
        return False

    def _passed_limit(self) -> str:
        """Return which of the receiver's limits the block passes with what is in the columns, in words."""
        limits = self._limits
        body = self._body_bytes(self._count + 1)
        if body > limits.max_body:
            return f"its body has {body} bytes of {limits.max_body} (Limits.max_body); send large values as arrays"
        frames = 1 + len(self._writer.frames) + sum(not isinstance(column, ValueColumn) for column in self._columns)
        if frames > limits.max_frames:
            return f"it has {frames} frames of {limits.max_frames} (Limits.max_frames); stack the arrays"
        return ""

    def _body_bytes(self, rows: int) -> int:
        return HEAD_BYTES + len(self._packed_keys) + sum(column.body_bytes(rows) for column in self._columns)

    def _open(self, datapoint: Datapoint) -> None:
        """Make the columns that the first datapoint of a block asks for."""
        self._clear()
        kind = type(datapoint)
        if kind not in KINDS:
            raise EncodeError(not_a_datapoint(datapoint))
        width = len(datapoint)
        if width > self._limits.max_count:
            raise EncodeError(f"a datapoint has {width} components; {self._limits.max_count} travel (Limits.max_count)")
        self._kind = kind
        self._keys = list(datapoint) if kind is dict else []
        self._key_types = list(map(type, self._keys))
        check_keys(self._keys)
        self._packed_keys = self._writer.pack(self._keys if kind is dict else None)
        self._make_columns(list(datapoint.values() if isinstance(datapoint, dict) else datapoint), datapoint)
        self._puts = [column.put for column in self._columns]
        self._nbytes = self._body_bytes(0)
        limits = self._limits
        self._safe_bytes = min(limits.max_body, (limits.max_frames - width - 1) * INLINE_BYTES)

    def _make_columns(self, values: list[Any], datapoint: Datapoint) -> None:
        total = sum(value.nbytes for value in values if is_array(value)) or 1
        for index, value in enumerate(values):
            ragged = self._was_ragged[index : index + 1] == [True]
            try:
                self._columns.append(self._column(value, total, ragged))
            except EncodeError as error:
                raise _blamed(datapoint, len(values) - 1 - index, error) from None

    def _column(self, value: Any, total: int, ragged: bool) -> Column:
        """Return a column with memory for as many rows as a block of datapoints of ``total`` bytes has."""
        if self._mixed:
            return ValueColumn(self._writer, mixed=True)
        rows = self._rows or max(1, min(self._max_count, self._max_bytes // total))
        if is_stackable(value):
            return ScalarColumn(value, rows, self._writer)
        if not is_array(value):
            return ValueColumn(self._writer)
        if self._lend:
            return LentColumn(value, self._writer)
        if ragged:
            return RaggedColumn(value.dtype, rows * value.nbytes, self._writer)
        return StackColumn(value, rows, self._writer)

    def close(self) -> EncodedBlock:
        """Return the block and be empty again.

        Raises:
            ValueError: there is nothing in it.
            TimeoutError: another thread has begun a datapoint with `take`, and hangs.
        """
        self._end_lane()
        if not self._count:
            raise ValueError("close() of a block without datapoints")
        buffers: list[Frame] = [frame.data for frame in self._writer.frames]
        pack = self._writer.describe
        parts = [array_header(4), pack(self._count), pack(KINDS.index(self._kind)), self._packed_keys]
        parts.append(array_header(len(self._columns)))
        for column in self._columns:
            description, frame = column.closed(self._count, 1 + len(buffers))
            parts.append(description)
            if frame is not None:
                buffers.append(frame)
        frames: list[Frame] = [b"".join(parts), *buffers]
        block = EncodedBlock(frames, self._count, sum(map(len, frames)))
        self._was_ragged = [column.ragged for column in self._columns]
        self._clear()
        return block


def _nothing(_datapoint: Any) -> bool:
    return False


def _blamed(datapoint: Datapoint, after: int, error: EncodeError) -> EncodeError:
    """Return the error with the name of the component that has so many others after it."""
    index = len(datapoint) - 1 - after
    key = list(datapoint)[index] if isinstance(datapoint, dict) else None
    return EncodeError(f"{called(index, key)} {error}")
