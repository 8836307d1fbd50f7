"""Passes over numbered items: what an item raises, and a subclass with another pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dfserve.dataflow.failures import key_of
from dfserve.dataflow.indexed import Indexed


class Numbers(Indexed):
    """0 to 4, of which 1 and 3 cannot be had."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> list[Any]:
        if index == 1:
            raise TypeError("one")
        if index == 3:
            raise ValueError("three")
        return [index]


class Tens(Numbers):
    def __iter__(self) -> Iterator[list[Any]]:
        for (number,) in super().__iter__():
            yield [10 * number]


def test_a_pass_that_skips_goes_on_whatever_an_item_raises() -> None:
    assert list(Numbers(False, "skip")) == [[0], [2], [4]]


def test_an_error_that_is_raised_has_the_place_of_its_item() -> None:
    with pytest.raises(TypeError, match="one") as caught:
        list(Numbers(False))
    assert key_of(caught.value) == "1"


def test_a_subclass_with_another_pass_keeps_its_parents_pass_and_not_its_items() -> None:
    ds: Any = Tens(False, "skip")
    assert list(ds) == [[0], [20], [40]]
    with pytest.raises(TypeError):
        ds[0]
