"""Owns the tests of the broker's intake: sequences of blocks, offers, grants and what voids them."""

from __future__ import annotations

import secrets

import pytest

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.intake import MAX_OFFERS, Intake, State, Worker
from dfserve.errors import WireError
from dfserve.wire.messages import ProducerHello

KB = 1 << 10
TOTAL = 100 * KB


@pytest.fixture
def intake() -> Intake:
    return Intake(Budget(TOTAL))


def hello(session: bytes = b"", *, base: int = 1, passes: int = 1) -> ProducerHello:
    return ProducerHello(session or secrets.token_bytes(16), "host/0", "host", 1, "p", passes, base, b"", 0, 0)


def join(intake: Intake, session: bytes = b"") -> Worker:
    return intake.hello(hello(session), 0.0)[0]


def accounted(intake: Intake) -> int:
    return sum(sum(worker.grants) for worker in intake.workers.values())


def test_a_worker_is_new_once_and_comes_back_as_the_same(intake: Intake) -> None:
    first, new = intake.hello(hello(b"a" * 16), 0.0)
    again, new_again = intake.hello(hello(b"a" * 16), 5.0)
    assert (new, new_again) == (True, False)
    assert first is again


def test_a_new_worker_goes_on_after_what_an_earlier_broker_acknowledged(intake: Intake) -> None:
    worker, _ = intake.hello(hello(base=8), 0.0)
    assert (worker.received, worker.granted, worker.offered) == (7, 7, 7)
    intake.offer(worker, 8, [KB])
    intake.grant()
    assert intake.take(worker, 8, KB) == "new"


def test_a_worker_that_is_known_goes_on_after_what_was_received_whatever_it_says(intake: Intake) -> None:
    worker = join(intake, b"a" * 16)
    intake.offer(worker, 1, [KB, KB])
    intake.grant()
    assert intake.take(worker, 1, KB) == "new"
    intake.hello(hello(b"a" * 16, base=1), 1.0)
    assert worker.received == 1


def test_an_offer_that_overlaps_an_earlier_one_adds_only_what_is_new(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB, 2 * KB])
    intake.offer(worker, 1, [KB, 2 * KB, 3 * KB])
    intake.grant()
    assert list(worker.grants) == [charge_of(KB), charge_of(2 * KB), charge_of(3 * KB)]


def test_an_offer_of_nothing_new_adds_nothing(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB, KB])
    intake.offer(worker, 2, [KB])
    intake.offer(worker, 1, [KB])
    assert worker.offered == 2
    assert len(intake.requests) == 2


def test_an_offer_behind_a_gap_asks_for_a_new_hello_and_nothing_counts_until_then(intake: Intake) -> None:
    worker = join(intake, b"a" * 16)
    intake.offer(worker, 3, [KB])
    assert worker.resync
    intake.offer(worker, 1, [KB])
    intake.grant()
    assert worker.granted == 0
    intake.hello(hello(b"a" * 16), 1.0)
    intake.offer(worker, 1, [KB])
    intake.grant()
    assert worker.granted == 1


def test_grants_are_whole_blocks_and_never_more_than_the_budget(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [30 * KB] * 10)
    needed = intake.grant()
    assert worker.granted == 3
    assert intake.budget.used == 3 * charge_of(30 * KB)
    assert needed == charge_of(30 * KB)


def test_grants_follow_the_order_of_the_offers_of_all_workers(intake: Intake) -> None:
    workers = [join(intake) for _ in range(3)]
    for worker in workers:
        intake.offer(worker, 1, [40 * KB])
    intake.grant()
    assert [worker.granted for worker in workers] == [1, 1, 0]


def test_a_large_block_is_not_starved_by_small_ones_that_would_still_fit(intake: Intake) -> None:
    first, large, small = join(intake), join(intake), join(intake)
    intake.offer(first, 1, [60 * KB])
    intake.offer(large, 1, [90 * KB])
    for seq in range(1, 10):
        intake.offer(small, seq, [KB])
    assert intake.grant() == charge_of(90 * KB)
    assert small.granted == 0
    intake.take(first, 1, 60 * KB)
    intake.budget.give_back(charge_of(60 * KB))
    intake.grant()
    assert large.granted == 1


def test_a_hello_voids_grants_and_requests_and_gives_the_bytes_back(intake: Intake) -> None:
    worker, other = join(intake, b"a" * 16), join(intake)
    intake.offer(worker, 1, [40 * KB, 40 * KB, 40 * KB])
    intake.offer(other, 1, [KB])
    intake.grant()
    assert (worker.granted, other.granted) == (2, 0)
    intake.hello(hello(b"a" * 16), 1.0)
    assert (worker.granted, worker.offered, intake.budget.used) == (0, 0, 0)
    intake.grant()
    assert other.granted == 1
    assert intake.budget.used == charge_of(KB) == accounted(intake)


def test_a_block_that_was_received_already_is_a_duplicate_and_is_acknowledged_again(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB])
    intake.grant()
    assert intake.take(worker, 1, KB) == "new"
    worker.credit_due = False
    assert intake.take(worker, 1, KB) == "duplicate"
    assert worker.credit_due
    assert worker.received == 1


def test_a_block_before_which_one_is_missing_is_a_gap_and_asks_for_a_new_hello(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB, KB])
    intake.grant()
    assert intake.take(worker, 2, KB) == "gap"
    assert worker.resync
    assert intake.take(worker, 1, KB) == "gap", "what follows a gap is sent again after the hello"
    assert worker.received == 0


def test_a_block_whose_credit_crossed_the_hello_that_voided_it_is_a_gap_and_not_an_offence(intake: Intake) -> None:
    worker = join(intake, b"a" * 16)
    intake.offer(worker, 1, [KB])
    intake.grant()
    intake.hello(hello(b"a" * 16), 1.0)
    assert intake.take(worker, 1, KB) == "gap"
    assert intake.budget.used == 0


def test_a_block_of_another_size_than_was_offered_is_refused(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB])
    intake.grant()
    with pytest.raises(WireError, match=r"offered \d+ bytes and sent \d+") as caught:
        intake.take(worker, 1, KB + 1)
    assert caught.value.reason == "credit"
    assert worker.received == 0


def test_a_received_block_keeps_its_charge_until_somebody_frees_it(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [KB])
    intake.grant()
    intake.take(worker, 1, KB)
    assert accounted(intake) == 0
    assert intake.budget.used == charge_of(KB)


def test_more_offers_than_an_honest_worker_makes_are_refused(intake: Intake) -> None:
    worker = join(intake)
    intake.offer(worker, 1, [0] * MAX_OFFERS)
    with pytest.raises(WireError, match=f"more than {MAX_OFFERS} blocks") as caught:
        intake.offer(worker, MAX_OFFERS + 1, [0])
    assert caught.value.reason == "limits"


def test_a_block_as_large_as_the_budget_is_granted_and_a_larger_one_refused(intake: Intake) -> None:
    worker = join(intake)
    most = TOTAL - charge_of(0)
    with pytest.raises(WireError, match=f"block of {most + 1} bytes exceeds the budget of {TOTAL}") as caught:
        intake.offer(worker, 1, [most + 1])
    assert caught.value.reason == "limits"
    intake.offer(worker, 1, [most])
    assert intake.grant() == 0
    assert intake.budget.used == TOTAL


def test_a_worker_that_finished_stays_finished_when_its_connection_is_made_again(intake: Intake) -> None:
    worker = join(intake, b"a" * 16)
    worker.enter(State.FINISHED, 1.0)
    intake.hello(hello(b"a" * 16), 2.0)
    assert worker.state is State.FINISHED


def test_a_worker_that_was_given_up_is_live_again_when_it_comes_back(intake: Intake) -> None:
    worker = join(intake, b"a" * 16)
    worker.enter(State.GONE, 1.0, "not heard from")
    intake.hello(hello(b"a" * 16), 2.0)
    assert worker.live


def test_the_ends_of_workers_are_told_apart_and_without_those_that_were_told_before(intake: Intake) -> None:
    finished, broken, gone, told, _live = (join(intake) for _ in range(5))
    finished.enter(State.FINISHED, 1.0)
    broken.enter(State.BROKEN, 1.0)
    gone.enter(State.GONE, 1.0)
    told.enter(State.FINISHED, 1.0)
    assert intake.ended({told.session}) == ([finished], [broken])
