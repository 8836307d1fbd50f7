"""The books of a parallel map, against a plain model of them: any order of submissions, outcomes and abandonments."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dfserve.dataflow.parallel.window import Outcome, Window
from dfserve.errors import ConfigError


@dataclass
class ModelPass:
    taken: dict[int, bool] = field(default_factory=dict)  # by position: whether something came out
    count: int = 0
    ended: bool = False

    @property
    def barren(self) -> bool:
        return self.ended and len(self.taken) == self.count and not any(self.taken.values())


class WindowMachine(RuleBasedStateMachine):
    """A pool that answers in any order, and a consumer that takes, or leaves, at any time."""

    @initialize(limit=st.integers(1, 5), ordered=st.booleans())
    def begin(self, limit: int, ordered: bool) -> None:
        self.window = Window(limit, ordered=ordered)
        self.limit, self.ordered = limit, ordered
        self.submitted = 0
        self.in_pool: list[int] = []
        self.current: list[int] = []  # submitted since the last abandonment and not taken, in order
        self.finished: list[int] = []  # of these, the finished ones, in the order of their outcomes
        self.origin: dict[int, tuple[ModelPass, int]] = {}
        self.values: dict[int, int | None] = {}
        self.source_pass = ModelPass()
        self.barren = False

    @precondition(lambda self: self.window.has_room)
    @rule()
    def submit(self) -> None:
        ticket = self.window.submit(f"datapoint {self.submitted}")
        assert ticket == self.submitted, "tickets increase by one over the pool's life"
        self.submitted += 1
        self.in_pool.append(ticket)
        self.current.append(ticket)
        self.origin[ticket] = (self.source_pass, self.source_pass.count)
        self.source_pass.count += 1

    @precondition(lambda self: self.in_pool)
    @rule(data=st.data(), dropped=st.booleans())
    def finish(self, data: st.DataObject, dropped: bool) -> None:
        ticket = data.draw(st.sampled_from(self.in_pool))
        self.in_pool.remove(ticket)
        self.values[ticket] = None if dropped else ticket
        self.window.finish(Outcome(ticket, self.values[ticket]))
        if ticket in self.current:
            self.finished.append(ticket)

    @precondition(lambda self: self.window.ready)
    @rule()
    def take(self) -> None:
        taken = self.window.take()
        ticket = taken.outcome.ticket
        assert ticket == (self.current[0] if self.ordered else self.finished[0])
        assert taken.outcome.value == self.values[ticket]
        assert taken.datapoint == f"datapoint {ticket}"
        source_pass, position = self.origin[ticket]
        assert taken.position == position
        self.current.remove(ticket)
        self.finished.remove(ticket)
        source_pass.taken[position] = self.values[ticket] is not None
        self.barren = self.barren or source_pass.barren

    @rule()
    def end_source_pass(self) -> None:
        self.window.end_source_pass()
        self.source_pass.ended = True
        self.barren = self.barren or self.source_pass.barren
        self.source_pass = ModelPass()

    @rule()
    def abandon(self) -> None:
        self.window.abandon()
        assert self.window.wanted_from == self.submitted
        self.current.clear()
        self.finished.clear()
        self.source_pass = ModelPass()
        self.barren = False

    @invariant()
    def the_books_are_right(self) -> None:
        stale = set(self.in_pool) - set(self.current)
        inside = len(self.current) + len(stale)
        assert inside <= self.limit, "abandoned work counts too, until it is done"
        assert self.window.has_room == (inside < self.limit)
        assert self.window.empty == (not self.current)
        assert self.window.awaited == bool(self.in_pool)
        due = self.current[:1] if self.ordered else self.finished
        assert self.window.ready == any(ticket in self.finished for ticket in due)
        assert self.window.barren == self.barren


TestWindow = WindowMachine.TestCase


@given(st.permutations(range(6)))
def test_an_ordered_window_hands_out_in_the_order_of_submission(order: list[int]) -> None:
    window = Window(6, ordered=True)
    for number in range(6):
        window.submit(number)
    for ticket in order:
        window.finish(Outcome(ticket, "mapped"))
    assert [window.take().datapoint for _ in range(6)] == list(range(6))


def test_a_second_outcome_for_a_ticket_and_one_for_none_are_refused() -> None:
    window = Window(3)
    window.finish(Outcome(window.submit("a")))
    for ticket in (0, 7):
        with pytest.raises(KeyError):
            window.finish(Outcome(ticket))
    window.submit("b")
    window.abandon()
    window.finish(Outcome(1))
    with pytest.raises(KeyError):
        window.finish(Outcome(1))


def test_a_window_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="buffer_size is 0"):
        Window(0)
