"""Owns the books of a parallel map: what is in flight, what is wanted of it, and whose turn it is. No threads here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from dfserve.errors import ConfigError


class Outcome(NamedTuple):
    """What a pool answers to a ticket.

    Attributes:
        ticket: the one it was submitted under.
        value: what the function returned; None where it dropped the datapoint, or failed.
        error: what went wrong instead.
        trace: the traceback as text, where it is not that of ``error``: it was raised in another process.
    """

    ticket: int
    value: Any = None
    error: BaseException | None = None
    trace: str = ""


class Finished(NamedTuple):
    """An outcome whose turn it is, with what it came from.

    Attributes:
        outcome: of the function.
        datapoint: what was submitted.
        position: its place in its pass over the source, from 0.
    """

    outcome: Outcome
    datapoint: Any
    position: int


@dataclass
class SourcePass:
    """A pass over the source, of which some datapoints may still be in flight.

    Attributes:
        count: datapoints submitted so far.
        open: of those, the ones that were not taken yet.
        fruitful: a datapoint came out of it.
        ended: the source has no more.
    """

    count: int = 0
    open: int = 0
    fruitful: bool = False
    ended: bool = False

    @property
    def barren(self) -> bool:
        """It is over, and nothing came out of it."""
        return self.ended and not self.open and not self.fruitful


class _Task(NamedTuple):
    datapoint: Any
    position: int
    source_pass: SourcePass


class Window:
    """The datapoints that were submitted to a pool and not yet taken, at most ``limit`` at a time.

    Every ticket gets exactly one outcome, in any order. Those of an abandoned pass are swallowed; until they came they
    take up room, so that a consumer that abandons pass after pass does not heap up work.

    Attributes:
        wanted_from: tickets below this one are of an abandoned pass.
        barren: a whole pass over the source is over and nothing came out of it; it stays until it is set to False.
    """

    def __init__(self, limit: int, *, ordered: bool = False) -> None:
        """Allow ``limit`` datapoints; hand them out as they are finished, or in the order of submission if ``ordered``.

        Raises:
            ConfigError: ``limit`` is below 1.
        """
        if limit < 1:
            raise ConfigError(f"buffer_size is {limit}: at least 1 datapoint has to be in flight")
        self._limit = limit
        self._ordered = ordered
        self._next = 0  # the next ticket
        self._due = 0  # if ordered: the ticket whose turn it is
        self._tasks: dict[int, _Task] = {}  # in the pool
        self._stale: set[int] = set()  # in the pool, of abandoned passes
        self._held: dict[int, tuple[Outcome, _Task]] = {}  # finished before their turn
        self._ready: deque[tuple[Outcome, _Task]] = deque()
        self._pass = SourcePass()
        self.wanted_from = 0
        self.barren = False

    @property
    def has_room(self) -> bool:
        """One more may be submitted."""
        return len(self._tasks) + len(self._ready) + len(self._held) + len(self._stale) < self._limit

    @property
    def ready(self) -> bool:
        """One may be taken."""
        return bool(self._ready)

    @property
    def empty(self) -> bool:
        """Nothing that is wanted is in flight: everything submitted was taken or abandoned."""
        return not (self._tasks or self._ready or self._held)

    @property
    def awaited(self) -> bool:
        """The pool owes outcomes, wanted or not."""
        return bool(self._tasks or self._stale)

    def submit(self, datapoint: Any) -> int:
        """Enter a datapoint and return its ticket, one more than the last."""
        ticket = self._next
        self._next = ticket + 1
        source_pass = self._pass
        self._tasks[ticket] = _Task(datapoint, source_pass.count, source_pass)
        source_pass.count += 1
        source_pass.open += 1
        return ticket

    def end_source_pass(self) -> None:
        """Note that the source has no more; what is submitted next belongs to its next pass."""
        self._pass.ended = True
        self.barren = self.barren or self._pass.barren
        self._pass = SourcePass()

    def finish(self, outcome: Outcome) -> None:
        """Enter an outcome.

        Raises:
            KeyError: its ticket was never submitted, or had one.
        """
        ticket = outcome.ticket
        if ticket in self._stale:
            self._stale.remove(ticket)
            return
        entry = (outcome, self._tasks.pop(ticket))
        if not self._ordered:
            self._ready.append(entry)
            return
        self._held[ticket] = entry
        while self._due in self._held:
            self._ready.append(self._held.pop(self._due))
            self._due += 1

    def take(self) -> Finished:
        """Take the one whose turn it is; its room is free again.

        Raises:
            IndexError: none is ready.
        """
        outcome, (datapoint, position, source_pass) = self._ready.popleft()
        source_pass.open -= 1
        if outcome.value is not None:
            source_pass.fruitful = True
        elif source_pass.barren:
            self.barren = True
        return Finished(outcome, datapoint, position)

    def abandon(self) -> None:
        """Give up what is in flight, and begin a pass over the source."""
        self._stale.update(self._tasks)
        self._tasks.clear()
        self._ready.clear()
        self._held.clear()
        self._due = self.wanted_from = self._next
        self._pass = SourcePass()
        self.barren = False
