"""Owns the tests of a job in stream mode: who gets which block, what is freed when, and when the stream ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from dfserve.broker.budget import Budget, charge_of
from dfserve.broker.group import Consumer, Group
from dfserve.broker.intake import State, Worker
from dfserve.broker.stream import DESERTED, END_HOLD, LOST_NAMED, REMEMBER, StreamJob
from dfserve.broker.tally import Tally
from dfserve.errors import WireError
from dfserve.wire import messages as m

LIVENESS = 10.0
KB = 1 << 10
M = TypeVar("M", bound=m.Message)


class Stage:
    """A job, its clients and its clock; what the job says is kept by session."""

    def __init__(self, budget: int = 1 << 20) -> None:
        self.now = 0.0
        self.tally = Tally()
        self.budget = Budget(budget)
        self.said: list[tuple[bytes, m.Message]] = []
        self.job = StreamJob(self.budget, self.tally, self._send, LIVENESS)

    def _send(self, session: bytes, message: m.Message, _frames: Sequence[Any]) -> None:
        self.said.append((session, message))

    def worker(self, name: str = "w", passes: int = 1, *, uncertain: int = 0, restarts: int = 0) -> Worker:
        session = name.encode().ljust(16)
        hello = m.ProducerHello(session, f"host/{name}", "host", 1, "p", passes, 1, b"", uncertain, restarts)
        return self.job.worker_hello(hello, self.now)

    def join(
        self, name: str = "c", group: str = "g", *, lag: str = "wait", least: int = 1, received: int = 0, done: int = 0
    ) -> Consumer:
        session = name.encode().ljust(16)
        hello = m.ConsumerHello(session, name, "host", 1, "p", group, 50, lag, least, b"", received, done)
        found, consumer = self.job.consumer_hello(hello, received, done)
        self.job.catch_up(found, consumer, received)
        self.pump()
        return consumer

    def group(self, name: str = "g") -> Group:
        return self.job.groups[name]

    def pump(self, after: float = 0.0) -> None:
        self.now += after
        self.job.tick(self.now)
        self.job.pump(self.now)

    def produce(self, worker: Worker, blocks: int = 1, nbytes: int = 100, count: int = 2) -> int:
        """Offer and send blocks while they are granted; tell how many were."""
        for sent in range(blocks):
            self.job.intake.offer(worker, worker.received + 1, [nbytes])
            self.pump()
            if worker.granted == worker.received:
                return sent
            self.job.block(worker, m.Block(worker.received + 1, count, []), (), nbytes)
            self.pump()
        return blocks

    def finish(self, worker: Worker) -> None:
        self.job.intake.offer(worker, worker.received + 1, [0])
        self.pump()
        self.job.finish(worker, m.Finish(worker.received + 1), self.now)
        self.pump()

    def fail(self, worker: Worker, *, fatal: bool) -> None:
        fail = m.Fail(worker.received + 1, "item 40", "ValueError", "no", "Traceback", fatal)
        self.job.intake.offer(worker, fail.seq, [fail.nbytes])
        self.pump()
        self.job.fail(worker, fail, self.now)
        self.pump()

    def done(self, consumer: Consumer, upto: int | None = None, group: str = "g") -> None:
        self.job.done(self.group(group), consumer, m.Done(consumer.sent if upto is None else upto, 0.0))
        self.pump()

    def heard(self, consumer: Consumer, kind: type[M]) -> list[M]:
        return [message for session, message in self.said if session == consumer.session and isinstance(message, kind)]


@pytest.fixture
def stage() -> Stage:
    return Stage()


# ---------------------------------------------------------------------- who gets what


def test_what_came_before_any_group_is_kept_for_the_first_one(stage: Stage) -> None:
    stage.produce(stage.worker(), 3)
    consumer = stage.join()
    assert len(stage.heard(consumer, m.Deliver)) == 3


def test_a_late_group_starts_at_now(stage: Stage) -> None:
    worker = stage.worker()
    stage.join("early", "a")
    stage.produce(worker, 3)
    late = stage.join("late", "b")
    stage.produce(worker, 2)
    assert len(stage.heard(late, m.Deliver)) == 2


def test_consumers_of_a_group_share_and_each_group_gets_all(stage: Stage) -> None:
    one, two, other = stage.join("one", "a"), stage.join("two", "a"), stage.join("other", "b")
    stage.produce(stage.worker(), 6)
    assert len(stage.heard(one, m.Deliver)) + len(stage.heard(two, m.Deliver)) == 6
    assert stage.heard(one, m.Deliver)
    assert stage.heard(two, m.Deliver)
    assert len(stage.heard(other, m.Deliver)) == 6


def test_a_block_is_charged_until_every_group_has_acknowledged_it(stage: Stage) -> None:
    a, b = stage.join("a", "a"), stage.join("b", "b")
    stage.produce(stage.worker(), 1, nbytes=KB)
    stage.done(a, group="a")
    assert stage.budget.used == charge_of(KB)
    stage.done(b, group="b")
    assert stage.budget.used == stage.job.queued_bytes == 0


def test_the_worker_learns_that_its_blocks_were_received_and_consumed(stage: Stage) -> None:
    worker, consumer = stage.worker(), stage.join()
    stage.produce(worker, 2)
    stage.done(consumer)
    credits = [message for session, message in stage.said if session == worker.session]
    assert credits[-1] == m.Credit(acked=2, granted=2, released=2)


def test_a_consumer_that_comes_back_is_sent_again_only_what_it_has_not_received(stage: Stage) -> None:
    consumer = stage.join()
    stage.produce(stage.worker(), 4)
    stage.said.clear()
    again = stage.join(received=3, done=1)
    assert again is consumer
    assert [message.delivery for message in stage.heard(consumer, m.Deliver)] == [4]
    assert [delivery for delivery, _ in consumer.unacked] == [2, 3, 4]


def test_acknowledging_what_was_never_sent_is_refused_and_changes_nothing(stage: Stage) -> None:
    consumer = stage.join()
    stage.produce(stage.worker())
    with pytest.raises(WireError, match="acknowledged delivery 2 of 1"):
        stage.done(consumer, 2)
    assert consumer.done == 0


def test_a_refused_hello_leaves_no_consumer_behind_that_would_be_sent_blocks(stage: Stage) -> None:
    stage.join()
    with pytest.raises(WireError, match="acknowledged delivery 5 of 0"):
        stage.join("liar", done=5)
    assert len(stage.group().consumers) == 1


@pytest.mark.parametrize(("option", "value"), [("lag", "skip"), ("least", 2)])
def test_consumers_of_a_group_must_agree(stage: Stage, option: str, value: Any) -> None:
    stage.join("a")
    with pytest.raises(
        WireError, match=r"disagree on \w+: .*; give all of them the same, or use another group"
    ) as caught:
        stage.join("b", **{option: value})
    assert caught.value.reason == "config"
    stage.join("c", "another group", **{option: value})


def test_a_group_whose_consumers_have_left_may_be_set_up_anew(stage: Stage) -> None:
    first = stage.join("a", lag="wait")
    stage.job.consumer_bye(stage.group(), first, m.Bye(0, 0), stage.now)
    stage.join("b", lag="skip", least=3)
    assert (stage.group().lag, stage.group().min_producers) == ("skip", 3)


# ---------------------------------------------------------------------- the end of a finite stream


def test_a_finite_stream_ends_when_its_worker_has_finished_and_all_was_sent(stage: Stage) -> None:
    worker, consumer = stage.worker(), stage.join()
    stage.produce(worker, 2)
    stage.done(consumer)
    stage.finish(worker)
    (end,) = stage.heard(consumer, m.DeliverEnd)
    assert (end.delivery, end.finished, end.broken) == (3, 1, [])


def test_the_end_takes_the_clean_ends_of_min_producers_workers(stage: Stage) -> None:
    consumer = stage.join(least=2)
    stage.finish(stage.worker("one"))
    assert not stage.heard(consumer, m.DeliverEnd)
    stage.finish(stage.worker("two"))
    assert [end.finished for end in stage.heard(consumer, m.DeliverEnd)] == [2]


def test_the_end_waits_for_a_worker_that_is_still_at_it(stage: Stage) -> None:
    consumer, slow = stage.join(), stage.worker("slow")
    stage.finish(stage.worker("fast"))
    assert not stage.heard(consumer, m.DeliverEnd)
    stage.finish(slow)
    assert [end.finished for end in stage.heard(consumer, m.DeliverEnd)] == [2]


def test_an_endless_worker_that_left_is_no_end(stage: Stage) -> None:
    consumer, endless = stage.join(), stage.worker(passes=0)
    stage.produce(endless)
    stage.done(consumer)
    stage.job.worker_gone(endless, stage.now, "")
    stage.pump(after=100)
    assert not stage.heard(consumer, m.DeliverEnd)


def test_a_pass_that_a_worker_broke_off_ends_as_broken_and_says_who_and_why(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.job.worker_gone(worker, stage.now, "killed by SIGKILL")
    stage.pump()
    (end,) = stage.heard(consumer, m.DeliverEnd)
    assert (end.finished, end.broken) == (0, ["host/w: killed by SIGKILL"])
    assert stage.tally.errors["worker_lost"] == 1


def test_a_pass_that_its_worker_left_in_the_middle_ends_as_broken_but_nobody_was_lost(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.produce(worker)
    stage.job.worker_gone(worker, stage.now, "")
    stage.done(consumer)
    assert [end.broken for end in stage.heard(consumer, m.DeliverEnd)] == [["host/w: left in the middle of its pass"]]
    assert not stage.tally.errors


def test_a_pass_that_raised_delivers_what_came_before_then_the_failure_then_a_broken_end(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.produce(worker, 2)
    stage.fail(worker, fatal=True)
    stage.done(consumer)
    kinds = [type(message) for session, message in stage.said if session == consumer.session]
    assert kinds == [m.Deliver, m.Deliver, m.DeliverFailure, m.DeliverEnd]
    (failure,), (end,) = stage.heard(consumer, m.DeliverFailure), stage.heard(consumer, m.DeliverEnd)
    assert (failure.key, failure.kind, failure.host, failure.worker) == ("item 40", "ValueError", "host", "host/w")
    assert end.broken == ["host/w: ValueError at item 40"]


def test_each_group_learns_of_a_failure_once(stage: Stage) -> None:
    one, two, other = stage.join("one", "a"), stage.join("two", "a"), stage.join("other", "b")
    stage.fail(stage.worker(), fatal=True)
    assert len(stage.heard(one, m.DeliverFailure) + stage.heard(two, m.DeliverFailure)) == 1
    assert len(stage.heard(other, m.DeliverFailure)) == 1


def test_a_failure_of_an_endless_worker_breaks_no_pass(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker(passes=0)
    stage.fail(worker, fatal=False)
    stage.done(consumer)
    assert stage.heard(consumer, m.DeliverFailure)
    assert not stage.heard(consumer, m.DeliverEnd)
    assert worker.live


def test_a_worker_whose_pass_raised_stays_broken_when_its_connection_is_made_again(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.fail(worker, fatal=True)
    stage.job.worker_unreachable(worker, stage.now)
    stage.worker("w")
    stage.job.worker_gone(worker, stage.now, "")
    stage.done(consumer)
    assert [end.broken for end in stage.heard(consumer, m.DeliverEnd)] == [["host/w: ValueError at item 40"]]


def test_a_worker_that_was_given_up_and_comes_back_can_still_end_the_stream(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.job.worker_gone(worker, stage.now, "not heard from for 10 s")
    stage.pump()
    stage.done(consumer)
    stage.worker("w")
    stage.produce(worker)
    stage.done(consumer)
    stage.finish(worker)
    assert [(end.finished, len(end.broken)) for end in stage.heard(consumer, m.DeliverEnd)] == [(0, 1), (1, 0)]


def test_the_end_waits_for_what_other_consumers_hold_but_not_for_ever(stage: Stage) -> None:
    worker, reads, holds = stage.worker(), stage.join("reads"), stage.join("holds")
    stage.produce(worker, 2)
    stage.done(reads)
    stage.finish(worker)
    assert not stage.heard(reads, m.DeliverEnd)
    stage.pump(after=END_HOLD / 2)
    assert not stage.heard(reads, m.DeliverEnd)
    stage.pump(after=END_HOLD)
    assert stage.heard(reads, m.DeliverEnd)
    assert stage.heard(holds, m.DeliverEnd)


def test_the_end_waits_for_an_unreachable_consumer_until_it_is_given_up_and_its_blocks_are_moved(stage: Stage) -> None:
    worker, reads, dies = stage.worker(), stage.join("reads"), stage.join("dies")
    stage.produce(worker, 2)
    stage.done(reads)
    stage.finish(worker)
    stage.job.consumer_unreachable(dies, stage.now)
    stage.pump(after=LIVENESS - 1)
    assert not stage.heard(reads, m.DeliverEnd)
    stage.pump(after=2)
    assert [message.again for message in stage.heard(reads, m.Deliver)] == [False, True]
    assert not stage.heard(reads, m.DeliverEnd), "the end comes after the block, not instead of it"
    stage.done(reads)
    assert stage.heard(reads, m.DeliverEnd)


def test_a_consumer_that_comes_after_the_end_of_its_group_is_told_of_it(stage: Stage) -> None:
    stage.join("early")
    stage.finish(stage.worker())
    late = stage.join("late")
    assert [end.finished for end in stage.heard(late, m.DeliverEnd)] == [1]


def test_a_consumer_that_comes_after_the_end_but_with_the_next_workers_is_not_told_of_it(stage: Stage) -> None:
    stage.join("early")
    stage.finish(stage.worker("one"))
    stage.worker("two")
    late = stage.join("late")
    assert not stage.heard(late, m.DeliverEnd)


def test_a_late_group_hears_nothing_of_an_end_that_was_before_it(stage: Stage) -> None:
    stage.join("early", "a")
    stage.finish(stage.worker())
    late = stage.join("late", "b")
    stage.pump(after=100)
    assert not stage.heard(late, m.DeliverEnd)


def test_the_second_round_of_workers_ends_the_stream_a_second_time(stage: Stage) -> None:
    consumer = stage.join()
    for name in ("one", "two"):
        stage.finish(stage.worker(name))
        stage.done(consumer)
    assert [end.finished for end in stage.heard(consumer, m.DeliverEnd)] == [1, 1]


def test_an_end_that_got_lost_is_said_again_as_it_was_whoever_came_meanwhile(stage: Stage) -> None:
    consumer, worker = stage.join(), stage.worker("w")
    stage.job.worker_gone(worker, stage.now, "killed by SIGKILL")
    stage.pump()
    stage.worker("next")
    stage.said.clear()
    stage.join(received=0)
    assert [end.broken for end in stage.heard(consumer, m.DeliverEnd)] == [["host/w: killed by SIGKILL"]]


def test_an_end_is_unheard_until_its_consumer_has_acknowledged_it_or_is_gone(stage: Stage) -> None:
    worker, one, other = stage.worker(), stage.join("one"), stage.join("other")
    stage.produce(worker, 2)
    assert not stage.job.end_unheard
    stage.done(one)
    stage.done(other)
    stage.finish(worker)
    assert stage.job.end_unheard
    stage.done(one)
    assert stage.job.end_unheard
    stage.job.consumer_unreachable(other, stage.now)
    assert not stage.job.end_unheard


# ---------------------------------------------------------------------- consumers that leave, die or pause


def test_a_consumer_that_leaves_gives_back_what_it_had_not_handed_out_without_doubt(stage: Stage) -> None:
    leaves = stage.join("leaves")
    stage.produce(stage.worker(), 3, count=10)
    stage.job.consumer_bye(stage.group(), leaves, m.Bye(done=1, partial=4), stage.now)
    stays = stage.join("stays")
    assert [(message.skip, message.again) for message in stage.heard(stays, m.Deliver)] == [(4, False), (0, False)]
    assert stage.tally.group("g").datapoints == 14
    stage.done(stays)
    assert stage.tally.group("g").datapoints == 30
    assert (stage.tally.redelivered, stage.tally.in_doubt) == (0, 0)


def test_a_dead_consumers_blocks_go_to_a_live_one_and_are_counted_as_in_doubt(stage: Stage) -> None:
    dies, lives = stage.join("dies"), stage.join("lives")
    stage.produce(stage.worker(), 4, count=5)
    stage.job.consumer_unreachable(dies, stage.now)
    stage.pump(after=LIVENESS + 1)
    assert [message.again for message in stage.heard(lives, m.Deliver)] == [False, False, True, True]
    assert (stage.tally.redelivered, stage.tally.in_doubt) == (2, 10)
    assert stage.tally.errors["consumer_lost"] == 1


def test_a_consumer_that_comes_back_within_the_liveness_keeps_its_blocks(stage: Stage) -> None:
    away, other = stage.join("away"), stage.join("other")
    stage.produce(stage.worker(), 4)
    held = list(away.unacked)
    stage.job.consumer_unreachable(away, stage.now)
    stage.pump(after=LIVENESS - 1)
    stage.join("away", received=2)
    stage.pump(after=LIVENESS)
    assert list(away.unacked) == held
    assert not any(message.again for message in stage.heard(other, m.Deliver))
    assert stage.tally.redelivered == 0


def test_a_lone_consumer_keeps_its_blocks_however_long_it_is_away(stage: Stage) -> None:
    alone = stage.join()
    stage.produce(stage.worker(), 3)
    stage.job.consumer_unreachable(alone, stage.now)
    stage.pump(after=1000 * LIVENESS)
    stage.said.clear()
    assert stage.join(received=3) is alone
    assert not stage.heard(alone, m.Deliver), "it has them: nothing is sent again"
    stage.done(alone)
    assert stage.tally.group("g").datapoints == 6
    assert (stage.tally.redelivered, stage.tally.in_doubt) == (0, 0)


def test_a_lone_consumer_is_given_up_once_another_comes(stage: Stage) -> None:
    away = stage.join("away")
    stage.produce(stage.worker(), 3)
    stage.job.consumer_unreachable(away, stage.now)
    stage.pump(after=LIVENESS + 1)
    other = stage.join("other")
    stage.pump()
    assert len(stage.heard(other, m.Deliver)) == 3
    assert stage.tally.redelivered == 3


def test_a_consumer_that_was_given_up_is_told_so_when_it_comes_back(stage: Stage) -> None:
    away, _ = stage.join("away"), stage.join("other")
    stage.produce(stage.worker(), 2)
    stage.job.consumer_unreachable(away, stage.now)
    stage.pump(after=LIVENESS + 1)
    with pytest.raises(WireError, match="what it held went to others") as caught:
        stage.join("away", received=1)
    assert caught.value.reason == "expired"


def test_a_stopped_consumer_that_is_connected_is_never_given_up(stage: Stage) -> None:
    stopped, reads = stage.join("stopped"), stage.join("reads")
    stage.produce(stage.worker(), 2)
    stage.pump(after=1000 * LIVENESS)
    assert stopped.unacked
    assert len(stage.heard(reads, m.Deliver)) == 1


# ---------------------------------------------------------------------- groups that lag


def test_a_group_that_waits_holds_the_workers_back() -> None:
    stage = Stage(budget=100 * KB)
    stage.join()
    assert stage.produce(stage.worker(), 20, nbytes=10 * KB) == 8
    assert stage.tally.group("g").skipped == 0


def test_a_group_that_may_skip_misses_its_oldest_blocks_and_holds_nobody_back() -> None:
    stage = Stage(budget=100 * KB)
    reads, skips = stage.join("reads", "reads"), stage.join("skips", "skips", lag="skip")
    worker = stage.worker()
    for _ in range(30):
        assert stage.produce(worker, 1, nbytes=10 * KB, count=1) == 1
        stage.done(reads, group="reads")
    assert len(stage.heard(reads, m.Deliver)) == 30
    assert stage.tally.group("reads").skipped == 0
    delivered, queued = len(stage.heard(skips, m.Deliver)), stage.group("skips").queued()
    assert stage.tally.group("skips").skipped == 30 - delivered - queued > 0


def test_a_block_that_a_waiting_group_has_not_had_is_never_dropped_for_one_that_may_skip() -> None:
    stage = Stage(budget=100 * KB)
    waits, _ = stage.join("waits", "waits"), stage.join("skips", "skips", lag="skip")
    sent = stage.produce(stage.worker(), 30, nbytes=10 * KB)
    assert sent < 30
    while waits.unacked:
        stage.done(waits, group="waits")
    assert len(stage.heard(waits, m.Deliver)) == sent


def test_a_group_without_a_live_consumer_never_holds_the_others() -> None:
    stage = Stage(budget=100 * KB)
    reads, gone = stage.join("reads", "reads"), stage.join("gone", "gone")
    stage.job.consumer_bye(stage.group("gone"), gone, m.Bye(0, 0), stage.now)
    worker = stage.worker()
    for _ in range(30):
        assert stage.produce(worker, 1, nbytes=10 * KB, count=1) == 1
        stage.done(reads, group="reads")
    assert stage.tally.group("gone").skipped > 0
    assert stage.tally.group("reads").skipped == 0


def test_the_only_group_misses_nothing_while_its_consumer_is_away() -> None:
    stage = Stage(budget=100 * KB)
    away = stage.join()
    stage.job.consumer_unreachable(away, stage.now)
    sent = stage.produce(stage.worker(), 30, nbytes=10 * KB, count=1)
    assert sent < 30
    back = stage.join()
    while back.unacked:
        stage.done(back)
    assert len(stage.heard(back, m.Deliver)) == sent
    assert stage.tally.group("g").skipped == 0


# ---------------------------------------------------------------------- workers that die, and what is said of them


def test_a_worker_that_cannot_be_reached_gives_its_bytes_back_at_once(stage: Stage) -> None:
    worker = stage.worker()
    stage.job.intake.offer(worker, 1, [KB])
    stage.pump()
    assert stage.budget.used == charge_of(KB)
    stage.job.worker_unreachable(worker, stage.now)
    assert stage.budget.used == 0
    assert worker.state is State.SUSPECT


@pytest.mark.parametrize(("passes", "state"), [(1, State.BROKEN), (0, State.GONE)])
def test_a_worker_that_stays_away_is_given_up_after_the_liveness(stage: Stage, passes: int, state: State) -> None:
    worker = stage.worker(passes=passes)
    stage.job.worker_unreachable(worker, stage.now)
    stage.pump(after=LIVENESS)
    assert worker.state is State.SUSPECT
    stage.pump(after=1)
    assert worker.state is state
    assert worker.reason == "not heard from for 11 s"


def test_blocks_that_were_sent_again_are_dropped_and_counted(stage: Stage) -> None:
    worker, consumer = stage.worker(), stage.join()
    stage.produce(worker, 1)
    stage.job.block(worker, m.Block(1, 2, []), (), 100)
    stage.pump()
    assert stage.tally.duplicate == 1
    assert len(stage.heard(consumer, m.Deliver)) == 1
    assert stage.tally.producer("host/w").datapoints == 2


def test_what_an_earlier_broker_may_have_lost_is_counted_once(stage: Stage) -> None:
    stage.worker("w", uncertain=3, restarts=2)
    stage.worker("w", uncertain=3, restarts=2)
    assert stage.tally.uncertain == 3
    assert stage.tally.producer("host/w").restarts == 2


def test_a_beat_that_speaks_of_what_never_came_asks_for_a_new_hello(stage: Stage) -> None:
    worker = stage.worker()
    stage.job.worker_beat(worker, m.WorkerBeat(offered=1, granted=0, sent=0, blocked=0.5))
    assert worker.resync
    assert stage.tally.producer("host/w").blocked_seconds == 0.5


def test_a_beat_that_misses_a_grant_has_it_said_again(stage: Stage) -> None:
    worker = stage.worker()
    stage.job.intake.offer(worker, 1, [KB])
    stage.pump()
    stage.said.clear()
    stage.job.worker_beat(worker, m.WorkerBeat(offered=1, granted=0, sent=0, blocked=0.0))
    stage.pump()
    assert [message for _, message in stage.said] == [m.Credit(0, 1, 0)]


def test_a_consumers_beat_says_what_there_is_and_who_was_lost(stage: Stage) -> None:
    consumer = stage.join(least=9)
    stage.worker("lives")
    stage.finish(stage.worker("ends"))
    for number in range(LOST_NAMED + 2):
        stage.job.worker_gone(stage.worker(f"dies{number}"), stage.now, "killed")
    beat = stage.job.beat(stage.group(), consumer)
    assert (beat.sent, beat.producers, beat.finished, beat.queued, beat.occupancy) == (0, 1, 1, 0, 0.0)
    assert len(beat.lost) == LOST_NAMED
    assert beat.lost[-1] == f"host/dies{LOST_NAMED + 1} (killed)"


def test_a_worker_that_left_or_ended_in_an_earlier_pass_is_gone_and_has_not_never_come(stage: Stage) -> None:
    consumer = stage.join(least=2)
    stage.finish(stage.worker("ended"))
    stage.job.worker_gone(stage.worker("left", passes=0), stage.now, "")
    stage.job.worker_unreachable(stage.worker("cut off", passes=0), stage.now)
    beat = stage.job.beat(stage.group(), consumer)
    assert (beat.finished, beat.lost) == (1, ["host/left (left)", "host/cut off (its connection is gone)"])
    assert stage.job.lost()[0] == "host/ended (ended)", "in epochs no end is counted"


def test_a_worker_that_ended_is_forgotten_after_every_group_was_told(stage: Stage) -> None:
    consumer = stage.join(least=2)
    worker = stage.worker("one")
    stage.finish(worker)
    stage.pump(after=REMEMBER + 1)
    assert worker.session in stage.job.intake.workers, "its end still counts for the group"
    stage.finish(stage.worker("two"))
    stage.done(consumer)
    stage.pump(after=REMEMBER + 1)
    assert not stage.job.intake.workers
    assert not stage.group().seen


def test_draining_grants_nothing_and_hands_out_what_is_queued(stage: Stage) -> None:
    worker = stage.worker()
    stage.produce(worker, 2)
    stage.job.intake.offer(worker, 3, [KB])
    stage.job.pump(stage.now, grant=False)
    assert worker.granted == 2
    consumer = stage.join()
    assert len(stage.heard(consumer, m.Deliver)) == 2


def test_a_group_whose_connection_has_just_broken_misses_nothing(stage: Stage) -> None:
    slow = stage.join("slow", group="slow")
    stage.join("quick", group="quick")
    stage.job.consumer_unreachable(slow, stage.now)
    assert not stage.job._may_miss(stage.group("slow"), stage.now)
    assert stage.job._may_miss(stage.group("slow"), stage.now + 1e6)
    assert not stage.job._may_miss(stage.group("quick"), stage.now + 1e6)


def test_a_group_whose_consumers_all_died_is_forgotten_while_others_read(stage: Stage) -> None:
    dead = stage.join("dead", group="dead")
    stage.join("alive", group="alive")
    stage.job.consumer_unreachable(dead, stage.now)
    stage.job.tick(stage.now + DESERTED + 100.0)
    assert "dead" in stage.job.groups
    assert not stage.group("dead").consumers
    stage.job.tick(stage.now + 3 * DESERTED)
    assert set(stage.job.groups) == {"alive"}
