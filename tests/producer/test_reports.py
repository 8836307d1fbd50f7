"""Owns the tests of how exceptions are written into messages."""

from __future__ import annotations

import json

import pytest

from dfserve.producer.reports import cut_text, listed
from dfserve.producer.splits import Quarantined
from dfserve.wire.messages import MAX_TEXT


@pytest.mark.parametrize("most", [0, 1, 10, 40, 100, 999])
def test_a_long_text_is_cut_in_the_middle_to_the_length_that_it_may_have(most: int) -> None:
    text = "a" * 500 + "b" * 500
    found = cut_text(text, most)
    assert len(found) <= most
    assert most < 100 or (found[0], found[-1], "... cut ..." in found) == ("a", "b", True)
    assert cut_text(text, 1000) == text


@pytest.mark.parametrize(("count", "length"), [(1, 10), (1, 10**6), (30, 10_000), (4096, 10_000)])
def test_all_items_that_were_left_out_are_listed_however_many_and_long(count: int, length: int) -> None:
    failed = [
        Quarantined(number, "k" * length, "ValueError", '\0\n"é' * length, "t" * length) for number in range(count)
    ]
    found = listed(failed)
    assert len(found) <= MAX_TEXT
    rows = json.loads(found)
    assert len(rows) == count
    assert all(len(row) == 4 and all(isinstance(text, str) for text in row) for row in rows)
    assert count > 30 or (rows[0][0][0], rows[0][1]) == ("k", "ValueError")


def test_nothing_left_out_is_an_empty_text() -> None:
    assert listed([]) == ""
