"""Owns consecutive datapoints of a block that was received: they become Python objects when they are looked at.

Who takes them apart gets a list or dict of views for each. Who makes a batch takes whole columns instead, and no object
is made for any datapoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, overload

from dfserve.wire.components import Components

LISTS, TUPLES, DICTS = 0, 1, 2  # kinds of datapoints


@dataclass(frozen=True, eq=False)
class Received:
    """A block that passed every check; taking from a column cannot fail any more.

    Attributes:
        count: datapoints.
        kind: 0, 1 or 2 for datapoints that are lists, tuples or dicts.
        keys: of dict datapoints, else empty.
        columns: one for each component.
    """

    count: int
    kind: int
    keys: list[Any]
    columns: list[Components]


class Rows(Sequence[Any]):
    """The datapoints from ``start`` to ``stop`` of a block. Slices are such too.

    They keep the block's frames alive. Each look at a datapoint makes it anew.
    """

    __slots__ = ("block", "start", "stop")

    def __init__(self, block: Received, start: int, stop: int) -> None:
        self.block = block
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Any:
        span = range(self.start, self.stop)[place]
        if isinstance(span, int):
            return Rows(self.block, span, span + 1).listed()[0]
        if span.step != 1:
            raise ValueError(f"rows are consecutive; a slice has step 1, not {span.step}")
        return Rows(self.block, span.start, max(span.start, span.stop))

    def __iter__(self) -> Iterator[Any]:
        """Return the iterator of a list, which knows how many are left."""
        return iter(self.listed())

    def listed(self) -> list[Any]:
        """Return the datapoints."""
        block = self.block
        columns = [column.between(self.start, self.stop) for column in block.columns]
        rows: Iterable[tuple[Any, ...]] = zip(*columns)  # noqa: B905  # of one length
        if not columns:
            rows = repeat((), len(self))
        if block.kind == LISTS:
            return list(map(list, rows))
        if block.kind == TUPLES:
            return list(rows)
        return _dicts(block.keys, rows)


def _dicts(keys: list[Any], rows: Iterable[tuple[Any, ...]]) -> list[dict[Any, Any]]:
    """Return a dict for each row. Of two or three components, as most are, it takes a third of the time."""
    if len(keys) == 2:
        a, b = keys
        return [{a: first, b: second} for first, second in rows]
    if len(keys) == 3:
        a, b, c = keys
        return [{a: first, b: second, c: third} for first, second, third in rows]
    return [dict(zip(keys, row)) for row in rows]  # noqa: B905  # as many keys as columns: checked; and hot
