"""Tests of items that kill their workers: they are the same items in every epoch, wherever they lie."""

from __future__ import annotations

from dfserve.broker.poison import STRIKES, Poison
from dfserve.epochs.order import Order


def test_an_item_is_given_up_after_so_many_deaths_in_whatever_epochs() -> None:
    poison = Poison()
    poison.begin(100, 7, True)
    found = [poison.strike(epoch, Order(100, 7, epoch, True).position(42)) for epoch in range(STRIKES)]
    assert found == [None] * (STRIKES - 1) + [42]
    assert poison.items == {42}


def test_what_is_given_up_is_left_out_of_every_epoch() -> None:
    poison = Poison()
    poison.begin(100, 7, True, given_up=[3, 42])
    for epoch in range(4):
        order = Order(100, 7, epoch, True)
        wanted = sorted([order.position(3), order.position(42)])
        assert list(poison.within(epoch, 0, 100)) == wanted
        assert [p for first in range(0, 100, 8) for p in poison.within(epoch, first, 8)] == wanted


def test_deaths_at_no_position_of_the_plan_count_against_nobody() -> None:
    poison = Poison()
    poison.begin(10, 7, True)
    for _ in range(STRIKES):
        assert poison.strike(0, 10) is None
        assert poison.strike(0, -1) is None


def test_a_new_plan_starts_over() -> None:
    poison = Poison()
    poison.begin(10, 7, False, given_up=[1])
    poison.strike(0, 2)
    poison.begin(10, 7, False)
    assert poison.within(0, 0, 10) == ()
    assert poison.strike(0, 2) is None
