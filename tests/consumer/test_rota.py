"""Owns the tests of whose turn it is among brokers, and of when the stream of all has ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfserve.consumer.rota import Rota


def test_first_is_who_was_served_longest_ago() -> None:
    rota = Rota("abc")
    assert list(rota.going) == ["a", "b", "c"]
    rota.served("b")
    assert list(rota.going) == ["a", "c", "b"]
    rota.served("a")
    assert list(rota.going) == ["c", "b", "a"]


@given(st.integers(1, 5), st.lists(st.sets(st.integers(0, 4), min_size=1), max_size=50))
def test_who_has_something_every_time_is_served_at_least_each_nth_time(count: int, having: list[set[int]]) -> None:
    rota = Rota(range(count))
    patience = dict.fromkeys(range(count), 0)
    for some in having:
        able = [member for member in rota.going if member in some or member == 0]
        rota.served(able[0])
        for member in able:
            patience[member] = 0 if member == able[0] else patience[member] + 1
        assert patience[0] < count


def test_one_that_has_ended_has_no_turn_while_others_go_on() -> None:
    rota, over = Rota("abc").after_end("b")
    assert not over
    rota.served("a")
    assert list(rota.going) == ["c", "a"]
    assert rota.ended == ["b"]


def test_when_the_last_has_ended_it_is_over_and_all_begin_again() -> None:
    rota, overs = Rota("abc"), []
    for member in "bac":
        rota, over = rota.after_end(member)
        overs.append(over)
    assert overs == [False, False, True]
    assert sorted(rota.going) == ["a", "b", "c"]
    assert rota.ended == []


def test_the_stream_of_a_single_one_is_over_with_its_end() -> None:
    rota = Rota("a")
    rota.served("a")
    rota, over = rota.after_end("a")
    assert over
    assert rota.going == ["a"]
