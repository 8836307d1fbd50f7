"""Owns which split of an epoch is where: pending, leased, ready, placed, claimed. Pure: no clock, no sockets, no bytes.

A split is leased to a worker, comes back as one block or not at all, is *placed* (its outputs get their numbers in the
epoch), goes to the ranks whose rows it touches, and is settled when each of them has claimed its part. Only what lies
in a window above ``low`` is known by number: memory does not depend on the length of the epoch.

In the strict order a split is placed after the one before it, in the order of arrival when it is ready.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from dfserve.epochs.plan import merged
from dfserve.epochs.rows import Rows
from dfserve.errors import DfserveError


class Stage(Enum):
    """Where a split stands."""

    PENDING = "pending"
    LEASED = "leased"
    READY = "ready"  # here, and not yet numbered
    PLACED = "placed"  # numbered; some rank has yet to claim its part
    FAILED = "failed"  # an item raised, and a rank has yet to hear of it; then it is pending again
    SETTLED = "settled"


@dataclass(frozen=True)
class Made:
    """What a worker made of a split.

    Attributes:
        outputs: datapoints in the block.
        items: items of the split.
        filtered: items that gave nothing.
        quarantined: items that were given up.
        counts: how many outputs each item gave; () where each gave one.
        nbytes: what it is charged.
        block: whatever the owner of the bytes wants to find again.
        failed: it is no block but the news of a failure.
    """

    outputs: int
    items: int
    filtered: int = 0
    quarantined: int = 0
    counts: Sequence[int] = ()
    nbytes: int = 0
    block: Any = None
    failed: bool = False


@dataclass(eq=False)
class Split:
    """One split in the window. Claimants are ranks, and ``rank + world`` for what pads a rank's last row."""

    number: int
    stage: Stage = Stage.PENDING
    lease: int = 0
    attempts: int = 0
    start: int = -1
    made: Made | None = None
    outputs: int = -1  # of its block, once it has numbers
    owed: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)
    counted: bool = False  # among those that have their numbers
    aside: bool = False  # its block was let go while it waits for the rest of its row


@dataclass(frozen=True)
class Start:
    """Where an epoch begins, or goes on.

    Attributes:
        low: the first split that is not settled.
        total: outputs numbered so far; in the strict order those before ``low``.
        done: [first, last) ranges of splits above ``low`` that are settled.
        placed: (split, start, outputs, claimants that have claimed) of splits above ``low`` whose numbers are known and
            still needed: in the strict order also of those in ``done`` that have outputs, for they count.
        begin: for each rank, the first output number that it has not handed out.
        skip: (split, outputs of it that were handed out already).
        tally: items of the splits that are settled; how many of them were filtered, and quarantined.
    """

    low: int = 0
    total: int = 0
    done: Sequence[tuple[int, int]] = ()
    placed: Sequence[tuple[int, int, int, Sequence[int]]] = ()
    begin: Sequence[int] = ()
    skip: Sequence[tuple[int, int]] = ()
    tally: tuple[int, int, int] = (0, 0, 0)

    def claimed(self, split: int, claimant: int) -> bool:
        """Whether a rank's part of a split counts as claimed."""
        settled = split < self.low or any(first <= split < last for first, last in self.done)
        return settled or any(number == split and claimant in claimed for number, _, _, claimed in self.placed)


class NotRepeatableError(DfserveError):
    """A split had other outputs when it was made again."""


class Ledger:
    """The splits of one epoch.

    Attributes:
        low: every split below it is settled.
        total: outputs that have numbers.
        items, filtered, quarantined: of the settled splits.
        dropped: items whose outputs the last, incomplete row would have held, with even="drop"; known at the end.
        abandoned: an item raised after all ranks had gone on, in what a new broker makes again for the report: it will
            not be complete.
    """

    def __init__(self, splits: int, rows: Rows, *, strict: bool, even: str, window: int, start: Start) -> None:
        """Begin, or go on, with ``splits`` splits, of which ``window`` may be under way at once."""
        self.splits = splits
        self.rows = rows
        self.strict = strict
        self.even = even
        self.window = window
        self.low = start.low
        self.low_start = start.total  # strict: outputs before the split `low`
        self.total = start.total
        self.items, self.filtered, self.quarantined = start.tally
        self.dropped = 0
        self.abandoned = False
        self.begin = tuple(start.begin) or (0,) * rows.world
        self.skip = dict(start.skip)
        self.open: dict[int, Split] = {}
        self.queues: list[deque[tuple[int, int]]] = [deque() for _ in range(rows.world)]  # (split, claimant)
        self._done = sorted(start.done)
        self._returned: list[int] = []  # a heap
        self._frontier = start.low  # never leased
        self._next = start.low  # strict: the next to be placed
        self._unplaced = splits - start.low - sum(last - max(first, start.low) for first, last in self._done)
        self._tail: list[Split] = []  # placed in the last, incomplete row
        self._ended = False
        self._settled = 0  # splits in `open` that are
        self._leased: list[int] = []  # a heap of those that were leased, and of some that are not any more
        self._passed: set[int] = set()  # ranks that have gone on to the next epoch
        self.freed: list[Made] = []  # whose bytes are not needed any more; whoever counts them empties it
        for number, first, outputs, claimed in start.placed:
            self._recall(number, first, outputs, set(claimed))
        self._settle_low()
        self._maybe_end()

    # ------------------------------------------------------------------ production

    def lease(self, lease: int) -> Split | None:
        """Lease the earliest split that nobody makes, under a number that was never used; None if there is none."""
        number = self._earliest_pending()
        if number is None:
            return None
        if self._returned and self._returned[0] == number:
            heapq.heappop(self._returned)
        else:
            self._frontier = number + 1
        split = self.open.setdefault(number, Split(number))
        split.stage, split.lease = Stage.LEASED, lease
        split.attempts += 1
        heapq.heappush(self._leased, number)
        return split

    def earliest(self) -> int | None:
        """Return the earliest split that is neither ready nor further: the one that must always have room."""
        leased = self._leased
        while leased and ((split := self.open.get(leased[0])) is None or split.stage is not Stage.LEASED):
            heapq.heappop(leased)
        pending = self._earliest_pending(bounded=False)
        return min(leased[0], pending) if leased and pending is not None else leased[0] if leased else pending

    @property
    def may_lease(self) -> bool:
        """Whether ``lease`` would find one."""
        return self._earliest_pending() is not None

    @property
    def next_pending(self) -> int | None:
        """The split that ``lease`` would find."""
        return self._earliest_pending()

    @property
    def all_leased(self) -> bool:
        """Whether every split was leased or is settled, though some may come back."""
        return self._earliest_pending(bounded=False) is None

    def held(self) -> list[Made]:
        """Return the blocks that are here and not freed."""
        return [split.made for split in list(self.open.values()) if split.made is not None]

    def made(self, number: int, lease: int, made: Made) -> bool:
        """Take a worker's block in. False: the lease is not the split's any more, and nothing has changed.

        Raises:
            NotRepeatableError: the split was made before, with another number of outputs.
        """
        split = self.open.get(number)
        if split is None or split.stage is not Stage.LEASED or split.lease != lease:
            return False
        if not made.failed and split.outputs not in (-1, made.outputs):
            raise NotRepeatableError(
                f"split {number} had {split.outputs} outputs when it was first made and {made.outputs} now; a"
                " pipeline whose filter does not depend on the item and its random numbers alone cannot be resumed"
            )
        split.made, split.aside = made, False
        split.stage = Stage.READY
        if self.strict and not split.counted:
            self._place_in_order()
        else:
            self._place(split)
        self._maybe_end()
        return True

    def lost(self, number: int, lease: int) -> bool:
        """Take a lease back: its worker is gone, or late, or was asked to drop it. Tells whether it was out."""
        split = self.open.get(number)
        if split is None or split.stage is not Stage.LEASED or split.lease != lease:
            return False
        self._return(split)
        return True

    def set_aside(self) -> bool:
        """Let a block go that is kept only because it may pad the last row; if it does, it is made again."""
        for split in self._tail:
            if not split.aside and not split.owed:
                self._put_aside(split)
                return True
        return False

    def drop_ready(self) -> bool:
        """Forget the latest block that has no numbers yet, so that an earlier split gets its room; it is made again."""
        ready = [split for split in self.open.values() if split.stage is Stage.READY]
        if ready:
            split = max(ready, key=lambda each: each.number)
            self._free(split)
            self._return(split)
        return bool(ready)

    # ------------------------------------------------------------------ hand-out

    def claim(self, number: int, claimant: int) -> None:
        """Note that a rank has claimed its part, or heard of a failure. Durable before the rank hears of it."""
        split = self.open.get(number)
        if split is None or claimant not in split.owed:
            return
        split.owed.discard(claimant)
        if split.stage is Stage.FAILED:
            self._free(split)
            self._return(split)
            return
        split.claimed.add(claimant)
        self._maybe_settle(split)

    def passed(self, rank: int) -> None:
        """Note that a rank has gone on to the next epoch: it has had what it wanted of this one."""
        if rank in self._passed:
            return
        self._passed.add(rank)
        for split in list(self.open.values()):
            for claimant in (rank, rank + self.rows.world):
                self.claim(split.number, claimant)

    @property
    def final(self) -> bool:
        """Whether every split has its numbers, so that ``total`` is that of the epoch."""
        return self._unplaced == 0

    @property
    def complete(self) -> bool:
        """Whether every split is settled."""
        return self.low >= self.splits

    def record(self) -> Start:
        """Return what must be durable so that the epoch can go on after a crash."""
        placed = sorted(
            (split.number, split.start, split.outputs, tuple(sorted(split.claimed)))
            for split in self.open.values()
            if split.outputs >= 0 and self._must_be_known(split)
        )
        settled = [split for split in self.open.values() if split.stage is Stage.SETTLED]
        done = [*((max(first, self.low), last) for first, last in self._done if last > self.low)]
        done += [(split.number, split.number + 1) for split in settled]
        total = self.low_start if self.strict else self.total
        if self._renumbers:
            total -= sum(split.outputs for split in self.open.values() if split.stage is Stage.PLACED)
        tally = (self.items, self.filtered, self.quarantined)
        skip = tuple((split, count) for split, count in self.skip.items() if split >= self.low)
        return Start(self.low, total, tuple(merged(done)), tuple(placed), self.begin, skip, tally)

    @property
    def _renumbers(self) -> bool:
        """Whether numbers that nobody has claimed may become others after a crash: one rank counts what it has."""
        return not self.strict and self.rows.world == 1

    def _must_be_known(self, split: Split) -> bool:
        """Whether a split's number cannot be worked out again: some rank counts on it."""
        if split.stage is Stage.SETTLED:
            return self.strict and split.outputs > 0
        return bool(split.claimed) if self.strict or self._renumbers else True

    # ------------------------------------------------------------------ inside

    def _recall(self, number: int, start: int, outputs: int, claimed: set[int]) -> None:
        split = self.open[number] = Split(number, start=start, outputs=outputs, claimed=claimed)
        if self._is_done(number):
            split.stage, split.counted = Stage.SETTLED, True
            self._settled += 1
        else:
            heapq.heappush(self._returned, number)

    def _earliest_pending(self, *, bounded: bool = True) -> int | None:
        while self._frontier < self.splits and (self._frontier in self.open or self._is_done(self._frontier)):
            self._frontier += 1
        number = self._returned[0] if self._returned else self.splits
        number = min(number, self._frontier)
        if number >= self.splits or (bounded and number >= self.low + self.window and not self._only_rows_lack()):
            return None
        return number

    def _only_rows_lack(self) -> bool:
        """Whether the window is full of what waits for the rest of its row, or is settled above that."""
        resting = sum(not split.owed for split in self._tail)
        return resting > 0 and len(self.open) - self._settled - resting < self.window

    def _return(self, split: Split) -> None:
        split.stage, split.lease = Stage.PENDING, 0
        heapq.heappush(self._returned, split.number)

    def _is_done(self, number: int) -> bool:
        place = bisect_right(self._done, (number, self.splits + 1)) - 1
        return place >= 0 and self._done[place][0] <= number < self._done[place][1]

    def _place_in_order(self) -> None:
        while self._next < self.splits:
            split = self.open.get(self._next)
            if split is not None and split.stage is Stage.SETTLED:  # before the broker died
                self.total = split.start + split.outputs
            elif split is not None and split.stage is Stage.READY:
                if not self._place(split):
                    return
            elif split is not None or not self._is_done(self._next):
                return
            self._next += 1

    def _place(self, split: Split) -> bool:
        """Number a block's outputs. False: it is a failure, of which a rank is to hear first."""
        made = split.made
        assert made is not None
        if made.failed:
            split.stage = Stage.FAILED
            split.owed = self._told_of_failure(split)
            self.abandoned |= not split.owed
            self._queue(split)
            return False
        again = split.counted
        split.stage, split.counted = Stage.PLACED, True
        self._unplaced -= not again
        if not again and (split.outputs < 0 or self.strict):
            split.start, split.outputs = self.total, made.outputs
            self.total += made.outputs
        split.owed = set(self._touched(split)) - split.claimed - self._passed
        self._queue(split)
        if again:
            self._owe_padding(split)
        elif self.even and made.outputs:
            self._into_tail(split)
        self._maybe_settle(split)
        return True

    def _told_of_failure(self, split: Split) -> set[int]:
        """Return the rank whose turn it is, among those that need the split if its numbers are known."""
        world = self.rows.world
        turn = self.total // self.rows.stride
        ranks = [rank for rank in ((turn + i) % world for i in range(world)) if rank not in self._passed]
        needs = set(self._touched(split)) - split.claimed if split.outputs > 0 else set()
        return set(sorted(ranks, key=lambda rank: rank not in needs)[:1])

    def _queue(self, split: Split) -> None:
        for claimant in sorted(split.owed):
            self.queues[claimant % self.rows.world].append((split.number, claimant))

    def _touched(self, split: Split) -> Iterator[int]:
        for rank in self.rows.ranks(split.start, split.outputs):
            last = self.rows.ranges(rank, split.start, split.outputs)[-1][-1]
            if split.start + last >= self.begin[rank]:
                yield rank

    def _into_tail(self, split: Split) -> None:
        """Keep a block that lies in an incomplete row; let those go whose rows are complete now."""
        self._tail.append(split)
        complete = self._complete()
        gone = [each for each in self._tail if each.start + each.outputs <= complete]
        self._tail = [each for each in self._tail if each.start + each.outputs > complete]
        for each in gone:
            self._maybe_settle(each)

    def _complete(self) -> int:
        # Below 0 is what was handed out before the number of ranks changed.
        return self.rows.ready(max(0, self.total))

    def _maybe_end(self) -> None:
        """At the end, decide what becomes of the last, incomplete row: its datapoints pad it, or are left out."""
        if not self.final or self._ended:
            return
        self._ended = True
        tail, self._tail = self._tail, []
        for split in tail:
            if self.even == "pad":
                self._owe_padding(split)
            else:
                self.dropped += self._dropped_of(split)
                split.owed &= set(self._kept_by(split))  # nobody need claim what is left out
            self._maybe_settle(split)

    def _kept_by(self, split: Split) -> tuple[int, ...]:
        return self.rows.ranks(split.start, self._complete() - split.start)

    def _owe_padding(self, split: Split) -> None:
        padded = set()
        for rank in range(self.rows.world):
            padding = self.rows.padding(rank, max(0, self.total))
            had = max(0, self.begin[rank] - self._complete() - (rank + 1) * self.rows.stride + len(padding))
            wanted = any(0 <= g - split.start < split.outputs for g in padding[had:])
            if wanted and rank + self.rows.world not in split.claimed and rank not in self._passed:
                padded.add(rank + self.rows.world)
        if padded and split.aside:
            self._return(split)
            return
        split.owed |= padded
        for claimant in sorted(padded):
            self.queues[claimant - self.rows.world].append((split.number, claimant))

    def _dropped_of(self, split: Split) -> int:
        """Count the items of a block all of whose outputs lie in the last, incomplete row."""
        assert split.made is not None
        kept = self._complete() - split.start
        count = first = 0
        for outputs in split.made.counts or (1,) * split.made.items:
            count += outputs > 0 and first >= kept
            first += outputs
        return count

    def _maybe_settle(self, split: Split) -> None:
        if split.owed or split.stage is not Stage.PLACED:
            return
        if split in self._tail:
            if self.even == "drop":
                self._put_aside(split)
            return
        made = split.made
        assert made is not None
        split.stage = Stage.SETTLED
        self._settled += 1
        self.items += made.items
        self.filtered += made.filtered
        self.quarantined += made.quarantined
        self._free(split)
        self._settle_low()

    def _free(self, split: Split) -> None:
        if split.made is not None:
            self.freed.append(split.made)
            split.made = None

    def _put_aside(self, split: Split) -> None:
        made = split.made
        if made is not None and not split.aside:
            self._free(split)
            split.made, split.aside = replace(made, block=None, nbytes=0), True

    def _settle_low(self) -> None:
        while self.low < self.splits:
            split = self.open.get(self.low)
            if split is not None and split.stage is Stage.SETTLED:
                self.low_start = split.start + split.outputs
                del self.open[self.low]
                self._settled -= 1
            elif not self._is_done(self.low):
                return
            self.low += 1
        self._done = [span for span in self._done if span[1] > self.low]
