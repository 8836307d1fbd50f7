"""Where blocks go in shared memory: no two overlap, nothing leaks, the lowest place first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfserve.sharing.extents import GRAIN, Extents

SIZES = st.integers(0, 5 * GRAIN)


def test_the_lowest_free_place_is_taken_first() -> None:
    extents = Extents(10 * GRAIN)
    first, second = extents.take(1), extents.take(GRAIN + 1)
    assert (first, second) == (0, GRAIN)
    extents.give_back(0)
    assert extents.take(GRAIN) == 0
    assert extents.top == 3 * GRAIN


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    extents = Extents(2 * GRAIN)
    assert extents.take(3 * GRAIN) is None
    assert extents.take(2 * GRAIN) == 0
    assert extents.take(1) is None
    extents.give_back(0)
    assert extents.take(2 * GRAIN) == 0


def test_what_is_given_back_twice_is_free_once() -> None:
    extents = Extents(4 * GRAIN)
    extents.take(GRAIN)
    extents.give_back(0)
    extents.give_back(0)
    extents.give_back(77)
    assert extents.take(4 * GRAIN) == 0
    assert extents.lent == 4 * GRAIN


@given(st.lists(st.one_of(SIZES, st.none()), max_size=60), st.randoms(use_true_random=False))
def test_extents_never_overlap_and_all_memory_comes_back(steps: list[int | None], random: object) -> None:
    extents = Extents(16 * GRAIN + 5)
    lent: dict[int, int] = {}
    for step in steps:
        if step is None:
            if lent:
                offset = random.choice(sorted(lent))  # type: ignore[attr-defined]
                extents.give_back(offset)
                del lent[offset]
            continue
        offset = extents.take(step)
        if offset is not None:
            size = max(GRAIN, -(-step // GRAIN) * GRAIN)
            assert offset + size <= extents.top <= extents.capacity
            assert all(offset + size <= other or other + taken <= offset for other, taken in lent.items())
            lent[offset] = size
        assert extents.lent == sum(lent.values())
    for offset in list(lent):
        extents.give_back(offset)
    assert extents.take(extents.capacity) == 0
