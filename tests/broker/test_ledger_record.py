"""Owns the tests of the ledger's records: what a crash leaves and what decay leaves are told apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfserve.broker import ledger_record
from dfserve.broker.ledger_record import CONTENT, SECTOR, Found, RecordError, State, examine, newest, pack

SLOT = 8 * SECTOR
FITS = 7 * CONTENT  # bytes of payload that surely fit into the slot
payloads = st.integers(0, FITS).flatmap(lambda size: st.integers(0, 255).map(lambda fill: bytes([fill]) * size))
sequences = st.integers(1, ledger_record.LARGEST)


@given(sequence=sequences, payload=st.binary(max_size=FITS), after=st.binary(max_size=SECTOR))
def test_what_was_packed_is_found_whatever_follows_it(sequence: int, payload: bytes, after: bytes) -> None:
    record = pack(sequence, payload)
    assert len(record) == ledger_record.packed_size(len(payload))
    assert examine(record + after) == Found(State.WHOLE, sequence, payload)


@pytest.mark.parametrize("sequence", [0, -1, 1 << 64])
def test_a_sequence_number_that_does_not_fit_is_refused(sequence: int) -> None:
    with pytest.raises(ValueError, match=f"sequence number {sequence} is not from 1"):
        pack(sequence, b"")


@given(payload=payloads, data=st.data())
def test_a_flipped_bit_is_damage_and_never_looks_like_a_torn_write(payload: bytes, data: st.DataObject) -> None:
    record = bytearray(pack(7, payload))
    for bit in data.draw(st.sets(st.integers(0, 8 * len(record) - 1), min_size=1, max_size=3)):
        record[bit // 8] ^= 1 << bit % 8
    assert examine(bytes(record)).state is State.DAMAGED


@given(payload=payloads, data=st.data())
def test_a_cut_record_is_damage(payload: bytes, data: st.DataObject) -> None:
    record = pack(7, payload)
    cut = data.draw(st.integers(0, len(record) - 1))
    assert examine(record[:cut]).state is State.DAMAGED
    zeroed = record[:cut].ljust(len(record), b"\0")
    assert zeroed == record or examine(zeroed).state is State.DAMAGED


@given(st.binary(max_size=2 * SECTOR))
def test_foreign_bytes_are_damage(slot: bytes) -> None:
    assert examine(slot).state is State.DAMAGED


def test_a_whole_sector_in_the_wrong_place_is_damage() -> None:
    record = pack(7, b"x" * 2 * CONTENT)
    swapped = record[:SECTOR] + record[2 * SECTOR : 3 * SECTOR] + record[SECTOR : 2 * SECTOR]
    assert examine(swapped).state is State.DAMAGED


def test_an_older_records_sector_in_the_wrong_place_proves_nothing() -> None:
    record, older = pack(7, b"x" * 2 * CONTENT), pack(5, b"y" * 2 * CONTENT)
    assert examine(record[:SECTOR] + older[2 * SECTOR :] + record[2 * SECTOR :]).state is State.DAMAGED
    assert examine(record[:SECTOR] + older[SECTOR : 2 * SECTOR] + record[2 * SECTOR :]).state is State.TORN


def test_sectors_of_another_write_with_the_same_number_are_not_taken_for_this_ones() -> None:
    """A torn record's number is used again after the restart, with another state."""
    first, second = pack(7, b"a" * 2 * CONTENT), pack(7, b"b" * 2 * CONTENT)
    assert examine(first[:SECTOR] + second[SECTOR:]).state is State.TORN


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (Found(State.WHOLE, 5), Found(State.WHOLE, 5), "record 5 is whole, but may not be the last one"),
        (Found(State.WHOLE, 5), Found(State.DAMAGED, None), "may not be the last one"),
        (Found(State.DAMAGED, 6), Found(State.WHOLE, 5), "the slot of record 6 is damaged"),
        (Found(State.DAMAGED, 6), Found(State.EMPTY, 0), "no whole record"),
        (Found(State.TORN, 6), Found(State.TORN, 5), "no whole record"),
        (Found(State.EMPTY, 0), Found(State.DAMAGED, None), "no whole record"),
    ],
)
def test_a_pair_of_slots_that_leaves_a_doubt_is_refused(first: Found, second: Found, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        newest(first, second)


@pytest.mark.parametrize(
    "other",
    [
        Found(State.WHOLE, 4),
        Found(State.EMPTY, 0),
        Found(State.TORN, 6),
        Found(State.TORN, 4),
        Found(State.DAMAGED, 4),  # its head proves that nothing came after it
    ],
)
def test_a_slot_that_proves_that_nothing_in_it_is_newer_is_passed_over(other: Found) -> None:
    record = Found(State.WHOLE, 5, b"x")
    assert newest(record, other) is record
    assert newest(other, record) is record


class Disk:
    """Two slots, written as the ledger's file does it, on a disk that keeps any of the sectors when it stops."""

    def __init__(self) -> None:
        self.slots = [bytearray(ledger_record.empty(SLOT)) for _ in range(2)]
        self.next = 0
        self.confirmed: tuple[int, bytes] = (0, b"")
        self.doubtful: list[tuple[int, bytes]] = []  # begun after the confirmed one

    def write(self, sequence: int, payload: bytes, kept: set[int] | None = None) -> None:
        """Write a record; with ``kept``, the machine stops and only these sectors of it are on disk."""
        record = pack(sequence, payload)
        for index in range(len(record) // SECTOR):
            if kept is None or index in kept:
                place = slice(index * SECTOR, (index + 1) * SECTOR)
                self.slots[self.next][place] = record[place]
        if kept is None:
            self.next = 1 - self.next
            self.confirmed, self.doubtful = (sequence, payload), []
        else:
            self.doubtful.append((sequence, payload))

    def newest(self) -> Found | None:
        return newest(*[examine(bytes(slot)) for slot in self.slots])

    def restart(self) -> None:
        found = self.newest()
        if found is None:
            assert self.confirmed == (0, b"")
            self.next = 0
            return
        assert (found.sequence, found.payload) in [self.confirmed, *self.doubtful]
        self.confirmed, self.doubtful = (found.sequence or 0, found.payload), []
        self.next = int(examine(bytes(self.slots[0])) == found)


writes = st.lists(st.tuples(st.integers(1, 2), payloads, st.none() | st.sets(st.integers(0, 7))), max_size=8)


def history(steps: list[tuple[int, bytes, set[int] | None]]) -> Disk:
    disk = Disk()
    for ahead, payload, kept in steps:
        disk.write(disk.confirmed[0] + ahead, payload, kept)
        if kept is not None:
            disk.restart()
    return disk


@given(steps=writes, last=st.tuples(payloads, st.sets(st.integers(0, 7))))
@settings(max_examples=500)
def test_whatever_sectors_a_crash_keeps_the_ledger_goes_on_from_the_confirmed_record_or_a_later_one(
    steps: list[tuple[int, bytes, set[int] | None]], last: tuple[bytes, set[int]]
) -> None:
    disk = history(steps)
    disk.write(disk.confirmed[0] + 1, *last)
    disk.restart()


@given(steps=writes, last=st.none() | st.tuples(payloads, st.sets(st.integers(0, 7))), data=st.data())
@settings(max_examples=500)
def test_after_decay_it_goes_on_from_no_older_record(
    steps: list[tuple[int, bytes, set[int] | None]], last: tuple[bytes, set[int]] | None, data: st.DataObject
) -> None:
    disk = history(steps)
    if last is not None:
        disk.write(disk.confirmed[0] + 1, *last)
    places = st.tuples(st.integers(0, 1), st.integers(0, SLOT - 1), st.integers(1, 255))
    for slot, place, change in data.draw(st.lists(places, min_size=1, max_size=4)):
        disk.slots[slot][place] ^= change
    try:
        found = disk.newest()
    except RecordError:
        return
    if found is None:
        assert disk.confirmed == (0, b"")
    else:
        assert (found.sequence, found.payload) in [disk.confirmed, *disk.doubtful]


@given(steps=writes, slot=st.integers(0, 1), begin=st.integers(0, SLOT), size=st.integers(1, SLOT))
def test_zeros_in_the_newest_record_are_refused(
    steps: list[tuple[int, bytes, set[int] | None]], slot: int, begin: int, size: int
) -> None:
    disk = history(steps)
    disk.slots[slot][begin : begin + size] = bytes(len(disk.slots[slot][begin : begin + size]))
    try:
        found = disk.newest()
    except RecordError:
        return
    assert ((found.sequence, found.payload) if found else (0, b"")) == disk.confirmed


def test_a_machine_that_stops_at_its_first_write_has_a_new_ledger() -> None:
    disk = Disk()
    for kept in ({1}, {0}, set(), {0, 2}):
        disk.write(1, b"x" * 3 * CONTENT, kept)
        disk.restart()
        assert disk.newest() is None
