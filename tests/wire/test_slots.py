"""Owns the tests of which bytes of an arena are in use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dfserve.wire.slots import ALIGNMENT, Slots, rounded

SIZE = 64 * ALIGNMENT


def test_the_lowest_address_with_room_is_taken() -> None:
    slots = Slots(SIZE)
    first, second, third = (slots.take(100) for _ in range(3))
    assert (first, second, third) == (0, 128, 256)
    assert slots.give_back(128)
    assert slots.take(200) == 384  # does not fit between the others
    assert slots.take(100) == 128
    assert slots.peak == 384 + 256


def test_a_slot_is_given_back_once() -> None:
    slots = Slots(SIZE)
    assert slots.take(1) == 0
    assert slots.give_back(0)
    assert not slots.give_back(0)
    assert not slots.give_back(64)


def test_an_arena_of_nothing_has_no_room() -> None:
    assert Slots(0).take(1) is None


@given(st.integers(0, 10**9))
def test_a_size_is_rounded_up_to_whole_cache_lines(nbytes: int) -> None:
    assert rounded(nbytes) % ALIGNMENT == 0
    assert max(1, nbytes) <= rounded(nbytes) < nbytes + 2 * ALIGNMENT


class SlotsMachine(RuleBasedStateMachine):
    """Slots against a plain map of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(SIZE)
        self.taken: dict[int, int] = {}

    @rule(nbytes=st.integers(1, SIZE // 3))
    def take(self, nbytes: int) -> None:
        address = self.slots.take(nbytes)
        used = [False] * (SIZE // ALIGNMENT + 1)
        for start, length in self.taken.items():
            used[start // ALIGNMENT : (start + length) // ALIGNMENT] = [True] * (length // ALIGNMENT)
        used[-1] = True
        lines = rounded(nbytes) // ALIGNMENT
        fits = [first for first in range(len(used) - lines) if not any(used[first : first + lines])]
        assert address == (fits[0] * ALIGNMENT if fits else None)
        if address is not None:
            self.taken[address] = rounded(nbytes)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.taken)))
        del self.taken[address]
        assert self.slots.give_back(address)

    @invariant()
    def used_is_what_is_taken(self) -> None:
        assert self.slots.used == sum(self.taken.values())

    @invariant()
    def all_is_free_again_in_one_piece(self) -> None:
        if not self.taken:
            assert self.slots._free == [(0, SIZE)]


test_slots_never_overlap_and_are_found_if_there_is_room = SlotsMachine.TestCase
