"""Owns the tests of a worker's side of leases: what it holds, what it says, and what it says again."""

from __future__ import annotations

from typing import Any

import pytest

from dfserve.producer.lessee import Lessee
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m

BROKER, OTHER = b"b" * 16, b"o" * 16
OLD, NEW = b"g" * 16, b"h" * 16
SOURCE = e.Source("DataFromList", 10, False, "f", 8, 0, False, False, "")


@pytest.fixture
def lessee() -> Lessee:
    lessee = Lessee()
    lessee.welcome(BROKER)
    return lessee


def lease(number: int, split: int = 0, epoch: int = 0, generation: bytes = OLD) -> e.Lease:
    return e.Lease(number, generation, epoch, split, 0, True, 2 * split, 2, [], "raise", 1 << 20, [])


def made(number: int, generation: bytes = OLD) -> e.Made:
    return e.Made(number, generation, 0, 0, 2, [], "")


def make(lessee: Lessee) -> int:
    job = lessee.take()
    assert job is not None
    assert lessee.put(job, made(job.lease.lease), [b"block"])
    return job.lease.lease


def outgoing(lessee: Lessee) -> list[m.Message]:
    return [message for message, _ in lessee.take_outgoing()]


def test_a_worker_that_was_asked_for_nothing_has_nothing_to_do_or_to_say(lessee: Lessee) -> None:
    assert (lessee.waits, lessee.empty, lessee.take()) == (False, True, None)
    assert (outgoing(lessee), lessee.beat()) == ([], None)


def test_the_source_is_said_once_it_is_known_and_whenever_it_is_asked_for_after_that(lessee: Lessee) -> None:
    assert lessee.receive(e.Describe()) == []
    assert (lessee.asks, lessee.waits, outgoing(lessee)) == (True, True, [])
    lessee.describe(SOURCE)
    assert (lessee.asks, lessee.waits) == (False, False)
    assert outgoing(lessee) == [SOURCE]
    assert outgoing(lessee) == []
    assert lessee.receive(e.Describe()) == [SOURCE]


def test_the_earliest_split_of_the_earliest_epoch_is_begun_first(lessee: Lessee) -> None:
    for number, (epoch, split) in enumerate([(1, 0), (0, 7), (0, 3), (1, 9)]):
        lessee.receive(lease(number, split, epoch))
    assert [make(lessee) for _ in range(4)] == [2, 1, 0, 3]
    assert lessee.take() is None


def test_what_was_made_is_said_once_and_held_until_it_is_taken(lessee: Lessee) -> None:
    lessee.receive(lease(5))
    make(lessee)
    assert lessee.take_outgoing() == [(made(5), [b"block"])]
    assert outgoing(lessee) == []
    assert lessee.beat() == e.LeaseBeat([5], 0)
    lessee.receive(e.Taken([4, 5]))
    assert (lessee.empty, lessee.beat()) == (True, e.LeaseBeat([], 0))


def test_after_a_reconnect_everything_is_said_again(lessee: Lessee) -> None:
    for number in (1, 2, 3):
        lessee.receive(lease(number, split=number))
    make(lessee)
    outgoing(lessee)
    make(lessee)
    lessee.welcome(BROKER)
    assert outgoing(lessee) == [made(1), made(2)]
    assert lessee.beat() == e.LeaseBeat([1, 2, 3], 0)


def test_another_instance_of_the_broker_knows_of_no_lease(lessee: Lessee) -> None:
    lessee.receive(lease(1))
    lessee.receive(lease(2, split=1))
    job = lessee.take()
    assert job is not None
    lessee.welcome(OTHER)
    assert (lessee.empty, lessee.beat(), job.void) == (True, None, True)
    assert not lessee.put(job, made(1))
    assert outgoing(lessee) == []


def test_a_lease_of_a_new_generation_makes_those_of_the_old_void(lessee: Lessee) -> None:
    lessee.receive(lease(1))
    lessee.receive(lease(2, split=1))
    job = lessee.take()
    assert job is not None
    lessee.receive(lease(2, split=5, generation=NEW))
    assert job.void
    assert lessee.beat() == e.LeaseBeat([2], 0)
    following = lessee.take()
    assert following is not None
    assert following.lease.split == 5


@pytest.mark.parametrize("state", ["waits", "in the making", "made"])
def test_a_lease_that_is_revoked_before_its_answer_was_sent_is_dropped(lessee: Lessee, state: str) -> None:
    lessee.receive(lease(1))
    job = None if state == "waits" else lessee.take()
    if state == "made":
        assert job is not None
        lessee.put(job, made(1))
    assert lessee.receive(e.Revoke([1])) == [e.Dropped([1])]
    assert lessee.empty
    assert job is None or job.void
    assert outgoing(lessee) == []


def test_a_lease_that_is_revoked_after_its_answer_was_sent_is_still_held(lessee: Lessee) -> None:
    lessee.receive(lease(1))
    make(lessee)
    outgoing(lessee)
    assert lessee.receive(e.Revoke([1])) == []
    assert not lessee.empty


def test_a_lease_that_never_came_is_dropped_when_it_is_revoked(lessee: Lessee) -> None:
    assert lessee.receive(e.Revoke([7])) == [e.Dropped([7])]


def test_a_lease_that_comes_again_is_not_begun_again_but_its_answer_is_said_again(lessee: Lessee) -> None:
    lessee.receive(lease(1))
    job = lessee.take()
    lessee.receive(lease(1))
    assert lessee.take() is None
    assert job is not None
    lessee.put(job, made(1))
    assert outgoing(lessee) == [made(1)]
    lessee.receive(lease(1))
    assert outgoing(lessee) == [made(1)]


def test_one_that_closes_drops_what_waits_and_what_comes_and_hands_over_what_it_makes(lessee: Lessee) -> None:
    for number in (1, 2, 3):
        lessee.receive(lease(number, split=number))
    job = lessee.take()
    assert job is not None
    assert lessee.close() == [e.Dropped([2, 3])]
    assert lessee.close() == []
    assert lessee.receive(lease(4)) == [e.Dropped([4])]
    assert lessee.put(job, made(1))
    assert outgoing(lessee) == [made(1)]


def test_one_that_gives_a_lease_up_says_so_unless_nobody_wants_it(lessee: Lessee) -> None:
    lessee.receive(lease(1))
    job: Any = lessee.take()
    assert lessee.drop(job) == [e.Dropped([1])]
    assert lessee.drop(job) == []
    assert lessee.empty
