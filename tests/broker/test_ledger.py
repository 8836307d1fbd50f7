"""Tests of the ledger by itself: what is remembered, and how much, at any length of an epoch."""

from __future__ import annotations

import pytest

from dfserve.broker.ledger import Ledger, Made, NotRepeatableError, Start
from dfserve.epochs.rows import Rows

WINDOW = 64


def ledger_of(splits: int, *, strict: bool = True, start: Start | None = None) -> Ledger:
    return Ledger(splits, Rows(1, 1), strict=strict, even="", window=WINDOW, start=start or Start())


def make(ledger: Ledger, number: int, outputs: int = 2) -> int:
    """Lease a split and bring its block; return which it was."""
    split = ledger.lease(number)
    assert split is not None
    assert ledger.made(
        split.number, number, Made(outputs, 2, filtered=2 - outputs, counts=(1,) * outputs + (0,) * (2 - outputs))
    )
    return split.number


@pytest.mark.parametrize("splits", [10**3, 10**7])
@pytest.mark.parametrize("strict", [True, False])
def test_only_what_is_under_way_is_remembered(splits: int, strict: bool) -> None:
    ledger = ledger_of(splits, strict=strict, start=Start(splits - 900, 0))
    waiting: list[int] = []
    lease = 0
    while not ledger.complete:
        while ledger.may_lease and len(waiting) < WINDOW:
            lease += 1
            waiting.append(make(ledger, lease))
        for number in reversed(waiting) if not strict else waiting:
            ledger.claim(number, 0)
        waiting.clear()
        ledger.freed.clear()
        assert len(ledger.open) <= WINDOW
        assert len(ledger.record().placed) <= WINDOW
    assert lease == 900
    assert ledger.items == 1800
    assert ledger.open == {}


def test_the_window_bounds_what_may_be_under_way() -> None:
    ledger = ledger_of(1000)
    leased = 0
    while ledger.lease(leased + 1) is not None:
        leased += 1
    assert leased == WINDOW


def test_a_block_of_a_lease_that_is_over_changes_nothing() -> None:
    ledger = ledger_of(3)
    first = ledger.lease(1)
    assert first is not None
    assert ledger.lost(first.number, 1)
    again = ledger.lease(2)
    assert again is first
    assert not ledger.made(first.number, 1, Made(2, 2))
    assert ledger.total == 0
    assert ledger.made(first.number, 2, Made(2, 2))
    assert ledger.total == 2


def test_a_split_that_comes_out_otherwise_when_it_is_made_again_is_an_error() -> None:
    ledger = Ledger(
        3, Rows(2, 1), strict=True, even="drop", window=WINDOW, start=Start(0, 0, placed=((0, 0, 2, (0,)),))
    )
    split = ledger.lease(1)
    assert split is not None
    with pytest.raises(NotRepeatableError, match="split 0 had 2 outputs when it was first made and 1 now"):
        ledger.made(0, 1, Made(1, 2, filtered=1))


def test_the_earliest_split_is_the_one_that_everything_waits_for() -> None:
    ledger = ledger_of(10)
    for lease in (1, 2, 3):
        assert ledger.lease(lease) is not None
    assert ledger.earliest() == 0
    assert ledger.made(0, 1, Made(2, 2))
    assert ledger.earliest() == 1
    assert ledger.lost(1, 2)
    assert ledger.earliest() == 1
    assert ledger.made(2, 3, Made(2, 2))
    assert ledger.earliest() == 1
