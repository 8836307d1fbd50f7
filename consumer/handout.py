"""Owns what a rank hands out of the blocks it opened, in which order, and where that leaves it. Pure.

With several ranks a datapoint is handed out when its row is complete, so that no rank takes a step that others cannot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfserve.epochs.plan import Plan, merged
from dfserve.epochs.state import State


@dataclass(eq=False)
class Segment:
    """Consecutive datapoints of one rank, of one block. ``first``: the number of the next one."""

    first: int
    rows: Sequence[Any]
    place: int
    split: int
    start: int
    skip: int
    last: bool  # the block has no more for this rank


class Handout:
    """One epoch of one rank.

    Args:
        plan: of the group, sizes settled.
        rank: which of its rows this is.
        state: the loader's state at the beginning, whose position is carried on.
        begin: strict order: the first output number that this rank has not handed out.

    Attributes:
        passed: datapoints of the rank that are behind it, padding included.
    """

    def __init__(self, plan: Plan, rank: int, state: State, begin: int) -> None:
        self.plan = plan
        self.rank = rank
        self.rows = plan.rows
        self.strict = plan.order == "strict"
        self.begin = begin
        self.passed = self._own_below(begin)
        self._state = state
        self._row_anchor = (state.split, state.start)
        self._ready: deque[Segment] = deque()
        self._pads: dict[int, Any] = {}  # by output number: what completes the last row
        self._done: list[tuple[int, int]] = list(state.done)
        self._open: dict[int, int] = dict(state.open)  # by split: how many outputs of it were handed out

    def _own_below(self, number: int) -> int:
        """Count the rank's outputs below a number."""
        rows, rest = divmod(max(0, number), self.rows.size)
        return rows * self.rows.stride + min(max(rest - self.rank * self.rows.stride, 0), self.rows.stride)

    # ------------------------------------------------------------------ in

    def add(self, split: int, start: int, skip: int, datapoints: Sequence[Any], *, padding: bool) -> int:
        """Add a block that was opened: ``datapoints[skip]`` has the output number ``start``. Returns what is new."""
        mine = datapoints[skip:] if skip else datapoints
        if padding:
            for offset, datapoint in enumerate(mine):
                self._pads[start + offset] = datapoint
            return 0
        self.passed += skip if not self.strict else 0
        spans = self.rows.ranges(self.rank, start, len(mine))
        segments = []
        for span in spans:
            first = max(span.start, self.begin - start) if self.strict else span.start
            if first < span.stop:
                segments.append(Segment(start + first, mine[first : span.stop], 0, split, start - skip, skip, False))
        if segments:
            segments[-1].last = True
            late = bool(self._ready) and segments[0].first < self._ready[-1].first
            self._ready.extend(segments)
            if late:  # made again after the broker died, with the number that it had before
                self._ready = deque(sorted(self._ready, key=lambda segment: segment.first))
        return sum(len(segment.rows) for segment in segments)

    def has(self, split: int) -> bool:
        """Whether a split's block was added, and something of it is left."""
        return any(segment.split == split for segment in self._ready if segment.place < len(segment.rows))

    # ------------------------------------------------------------------ out

    def limit(self, total: int, *, final: bool) -> int | None:
        """Return below which number outputs may be handed out; None: all."""
        if self.rows.world == 1:
            return None
        if final and self.plan.even == "pad":
            return total
        return self.rows.ready(total)

    def run(self, limit: int | None, most: int | None = None) -> Sequence[Any]:
        """Return the next datapoints that may be handed out, of one block, at most ``most``; none: ``()``.

        They count as handed out when `advance` says so.
        """
        segment = self._first()
        if segment is None or (limit is not None and segment.first >= limit):
            return ()
        count = len(segment.rows) - segment.place
        if limit is not None:
            count = min(count, limit - segment.first)
        if most is not None:
            count = min(count, most)
        whole = segment.place == 0 and count == len(segment.rows)
        return segment.rows if whole else segment.rows[segment.place : segment.place + count]

    def advance(self, count: int) -> None:
        """Note that so many datapoints of the last run were handed out.

        All of it or, if an interrupt comes, nothing: there is no call in the last two lines.
        """
        if not count:
            return
        passed = self.passed + count
        segment = self._first()
        if segment is None:  # padding, which no position points into
            self.passed = passed
            return
        place, first = segment.place + count, segment.first + count
        anchor, done, opened = self._row_anchor, self._done, self._open
        if self.strict and passed // self.rows.stride > self.passed // self.rows.stride:
            anchor = (segment.split, segment.start)
        elif not self.strict and segment.last and place == len(segment.rows):
            done = merged([*done, (segment.split, segment.split + 1)])
            opened = {split: count for split, count in opened.items() if split != segment.split}
        elif not self.strict:
            opened = {**opened, segment.split: first - segment.start}
        segment.place, segment.first, self.passed = place, first, passed
        self._row_anchor, self._done, self._open = anchor, done, opened

    def _first(self) -> Segment | None:
        """Return the segment that is handed out next, behind those of which nothing is left."""
        while self._ready and self._ready[0].place == len(self._ready[0].rows):
            self._ready.popleft()
        return self._ready[0] if self._ready else None

    def padding(self, total: int) -> Any:
        """Return the next datapoint that completes the last row, whose block is here."""
        return self._pads[self._next_pad(total)]

    def has_padding(self, total: int) -> bool:
        """Whether the block of the next datapoint that completes the last row is here."""
        return self._next_pad(total) in self._pads

    def _next_pad(self, total: int) -> int:
        return self.rows.padding(self.rank, total)[self.passed - self._own_below(total)]

    def pads(self, total: int) -> bool:
        """Whether what is left of this rank's share is padding."""
        return self.plan.even == "pad" and self.passed >= self._own_below(total)

    def over(self, total: int) -> bool:
        """Whether the rank has handed out all of its share of an epoch with ``total`` outputs."""
        return self.passed >= self.rows.share(total, self.plan.even)

    # ------------------------------------------------------------------ the state

    def state(self) -> State:
        """Return the position after what was handed out last."""
        if self.strict:
            row, taken = divmod(self.passed, self.rows.stride)
            split, start = self._row_anchor
            return replace(self._state, row=row, taken=taken, split=split, start=start)
        return replace(self._state, done=tuple(self._done), open=tuple(sorted(self._open.items())))
