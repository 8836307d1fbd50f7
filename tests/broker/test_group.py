"""Owns the tests of a group: which consumer is served next, and what one that leaves gives back."""

from __future__ import annotations

import pytest

from dfserve.broker.group import Consumer, Entry, Group, Parcel
from dfserve.broker.intake import Worker
from dfserve.window import CEILING_BYTES, FLOOR_BYTES, Window

WORKER = Worker(b"w" * 16, "host/0", "host", 1, 1, 0)
PLENTY = 1 << 40  # bytes: a share that does not bind


@pytest.fixture
def group() -> Group:
    return Group("g", "wait", 1)


def consumer(group: Group, name: str, hwm: int = 50) -> Consumer:
    member = Consumer(name.encode() * 16, name, Window(hwm))
    group.consumers[member.session] = member
    return member


def parcel(group: Group, count: int = 1, nbytes: int = 100) -> Parcel:
    entry = Entry(worker=WORKER, frames=(), count=count, nbytes=nbytes, charge=nbytes, holders={group})
    return Parcel(entry)


def test_the_consumer_that_holds_least_is_served_next(group: Group) -> None:
    a, b = consumer(group, "a"), consumer(group, "b")
    a.push(parcel(group))
    assert group.hungriest(PLENTY) is b
    b.push(parcel(group, nbytes=200))
    assert group.hungriest(PLENTY) is a


def test_consumers_that_hold_nothing_take_turns(group: Group) -> None:
    a, b = consumer(group, "a"), consumer(group, "b")
    a.push(parcel(group))
    a.pop()
    assert group.hungriest(PLENTY) is b


def test_a_consumer_that_cannot_be_reached_is_not_served(group: Group) -> None:
    consumer(group, "a").suspect_since = 1.0
    assert group.hungriest(PLENTY) is None
    assert not group.connected


def test_a_consumer_without_anything_gets_one_block_whatever_its_share(group: Group) -> None:
    a = consumer(group, "a")
    assert a.has_room(0)
    a.push(parcel(group, nbytes=10))
    assert not a.has_room(10)
    assert a.has_room(11)


def test_a_consumer_takes_no_more_than_its_window(group: Group) -> None:
    a = consumer(group, "a", hwm=4)
    a.push(parcel(group, count=2, nbytes=FLOOR_BYTES))
    a.push(parcel(group, count=2, nbytes=FLOOR_BYTES))
    assert not a.has_room(PLENTY)
    a.pop()
    assert a.has_room(PLENTY)


def test_many_large_datapoints_do_not_pile_up_at_one_consumer(group: Group) -> None:
    a = consumer(group, "a", hwm=1000)
    for _ in range(2):
        assert a.has_room(PLENTY)
        a.push(parcel(group, nbytes=CEILING_BYTES))
    assert not a.has_room(PLENTY)


def test_what_a_consumer_holds_goes_to_the_front_in_its_order(group: Group) -> None:
    a = consumer(group, "a")
    held, waiting = [parcel(group) for _ in range(3)], parcel(group)
    for one in held:
        a.push(one)
    group.pending.append(waiting)
    assert group.take_back(a, again=False) == held
    assert list(group.pending) == [*held, waiting]
    assert not group.consumers
    assert not any(one.again for one in group.pending)


def test_what_a_dead_consumer_held_is_marked_as_in_doubt_and_stays_so(group: Group) -> None:
    a, b = consumer(group, "a"), consumer(group, "b")
    a.push(parcel(group))
    (moved,) = group.take_back(a, again=True)
    assert moved.again
    group.pending.clear()
    b.push(moved)
    group.take_back(b, again=False)
    assert moved.again


def test_the_next_parcel_is_the_oldest_that_was_not_dropped(group: Group) -> None:
    dropped, kept = parcel(group), parcel(group)
    dropped.entry.holders.clear()
    group.pending.extend([dropped, kept])
    assert group.next_parcel() is kept
    assert group.next_parcel() is None


def test_what_is_queued_counts_datapoints_without_those_handed_out_or_dropped(group: Group) -> None:
    partly, dropped = parcel(group, count=10), parcel(group, count=7)
    partly.skip = 4
    dropped.entry.holders.clear()
    group.pending.extend([partly, dropped, parcel(group, count=5)])
    assert group.queued() == 11
