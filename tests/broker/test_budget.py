"""Owns the tests of the byte budget."""

from __future__ import annotations

import pytest

from dfserve.broker.budget import BLOCK_OVERHEAD, Budget, charge_of


def test_a_block_is_charged_its_bytes_and_the_objects_around_it() -> None:
    assert charge_of(0) == BLOCK_OVERHEAD
    assert charge_of(1000) == 1000 + BLOCK_OVERHEAD


def test_what_fits_is_all_that_is_left_and_not_a_byte_more() -> None:
    budget = Budget(100)
    budget.take(60)
    assert budget.fits(40)
    assert not budget.fits(41)


def test_bytes_that_were_given_back_can_be_taken_again() -> None:
    budget = Budget(100)
    budget.take(100)
    budget.give_back(30)
    budget.take(30)
    assert budget.used == 100


def test_the_peak_is_the_most_that_was_ever_taken() -> None:
    budget = Budget(100)
    budget.take(70)
    budget.give_back(70)
    budget.take(10)
    assert (budget.used, budget.peak) == (10, 70)


def test_taking_more_than_is_free_is_a_mistake_of_ours_that_is_noticed_at_once() -> None:
    budget = Budget(100)
    budget.take(60)
    with pytest.raises(AssertionError, match="41 bytes do not fit beside 60 of 100"):
        budget.take(41)
    assert budget.used == 60


def test_giving_back_more_than_was_taken_is_a_mistake_of_ours_that_is_noticed_at_once() -> None:
    budget = Budget(100)
    budget.take(60)
    with pytest.raises(AssertionError, match="61 bytes given back, 60 were taken"):
        budget.give_back(61)
