"""Owns the tests of the broker's decisions as a whole: who is behind a connection, and what is made of each message."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dfserve.broker.config import MIN_BUDGET, BrokerConfig
from dfserve.broker.core import BEAT, MAX_JOBS, Core
from dfserve.broker.intake import State
from dfserve.epochs.plan import Plan
from dfserve.errors import ConfigError
from dfserve.wire import epoch_messages as e
from dfserve.wire import messages as m
from dfserve.wire.blocks import encode_block

PROBE = [b""]  # what libzmq sends for a client on each new connection
LIVENESS = 10.0


class Clients:
    """A core, and what it says to each connection since it was last asked."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.core = Core(BrokerConfig(queue_bytes=2 * MIN_BUDGET, liveness=LIVENESS), lambda: self.wall)
        self.time = 0.0
        self.core.tick(0.0)
        self.answers()

    def say(self, connection: bytes, message: m.Message, frames: Sequence[Any] = ()) -> list[m.Message]:
        """Send a message; returns what that connection is told now."""
        return self.send(connection, [*m.encode(message), *frames])

    def send(self, connection: bytes, frames: list[Any]) -> list[m.Message]:
        self.core.receive(connection, frames)
        return self.answers().get(connection, [])

    def answers(self) -> dict[bytes, list[m.Message]]:
        found: dict[bytes, list[m.Message]] = {}
        for connection, message, _ in self.core.drain():
            found.setdefault(connection, []).append(message)
        return found

    def wait(self, seconds: float) -> dict[bytes, list[m.Message]]:
        """Let time pass in steps that the clock does not cap."""
        end = self.time + seconds
        while self.time < end:
            self.time = min(end, self.time + 0.5)
            self.core.tick(self.time)
        return self.answers()


def produces(name: str = "w", passes: int = 1, pipeline: str = "default") -> m.ProducerHello:
    return m.ProducerHello(secrets.token_bytes(16), f"host/{name}", "host", 1, pipeline, passes, 1, b"", 0, 0)


def consumes(name: str = "c", group: str = "g") -> m.ConsumerHello:
    return m.ConsumerHello(
        secrets.token_bytes(16), name, "host", 1, "default", group, 50, "wait", 1, b"", received=0, done=0
    )


def ranks() -> e.EpochsHello:
    plan = json.dumps(Plan("default", 0, False, "arrival", 4, 1, 1, "").to_dict())
    return e.EpochsHello(
        secrets.token_bytes(16),
        "r",
        "host",
        1,
        "default",
        "g",
        50,
        0,
        plan,
        "checkpoint",
        "",
        "raise",
        False,
        0,
        b"",
        b"",
        0,
        [],
    )


@pytest.fixture
def clients() -> Clients:
    return Clients()


def deliver(clients: Clients, connection: bytes, seq: int = 1) -> None:
    """Offer and send a block as a worker does that is known already."""
    block = encode_block([[seq, b"x" * 100]])
    clients.say(connection, m.Offer(seq, [block.nbytes]))
    clients.say(connection, m.Block(seq, 1, []), [bytes(memoryview(frame)) for frame in block.frames])


# ---------------------------------------------------------------------- who is there


def test_a_new_connection_is_asked_who_it_is(clients: Clients) -> None:
    assert clients.send(b"a", PROBE) == [m.Who()]


def test_a_message_of_an_unknown_connection_is_answered_with_the_question_and_changes_nothing(clients: Clients) -> None:
    assert clients.say(b"a", m.Offer(1, [10])) == [m.Who()]
    assert not clients.core.jobs


def test_an_unknown_connection_is_asked_once_a_beat_however_much_it_sends(clients: Clients) -> None:
    clients.send(b"a", PROBE)
    for _ in range(100):
        assert clients.say(b"a", m.Done(0, 0.0)) == []
    clients.wait(2 * BEAT)
    assert clients.say(b"a", m.Done(0, 0.0)) == [m.Who()]


def test_a_worker_is_welcomed_with_what_the_broker_has_and_admits(clients: Clients) -> None:
    (welcome,) = clients.say(b"a", produces())
    assert isinstance(welcome, m.ProducerWelcome)
    assert (welcome.acked, welcome.max_frame) == (0, clients.core.limits.max_frame)
    assert welcome.broker == clients.core.instance


def test_a_block_as_large_as_a_worker_is_told_is_admitted_and_a_larger_one_is_not(clients: Clients) -> None:
    (welcome,) = clients.say(b"a", produces())
    assert isinstance(welcome, m.ProducerWelcome)
    assert m.Credit(0, 1, 0) in clients.say(b"a", m.Offer(1, [welcome.budget]))
    clients.say(b"b", produces("other"))
    assert isinstance(clients.say(b"b", m.Offer(1, [welcome.budget + 1]))[0], m.Refused)


def test_a_consumer_is_told_at_once_how_things_stand(clients: Clients) -> None:
    clients.say(b"w", produces())
    welcome, beat = clients.say(b"c", consumes())
    assert welcome == m.ConsumerWelcome(clients.core.instance)
    assert isinstance(beat, m.ConsumerBeat)
    assert beat.producers == 1


def test_a_client_that_connects_anew_takes_its_messages_along(clients: Clients) -> None:
    hello = consumes()
    clients.say(b"old", hello)
    clients.say(b"new", hello)
    clients.say(b"w", produces())
    clients.core.receive(b"w", [*m.encode(m.Offer(1, [10]))])
    assert b"old" not in clients.wait(2 * BEAT)
    assert list(clients.core.peers) == [b"new", b"w"]


def test_a_connection_that_introduces_itself_as_another_gives_up_who_it_was(clients: Clients) -> None:
    first = produces("first")
    clients.say(b"a", first)
    clients.say(b"a", produces("second"))
    assert clients.core.jobs["default"].intake.workers[first.session].state is State.SUSPECT
    assert first.session not in clients.core.routes


def test_a_hello_without_a_session_is_refused(clients: Clients) -> None:
    (refused,) = clients.say(b"a", replace(produces(), session=b""))
    assert isinstance(refused, m.Refused)
    assert not clients.core.peers


def test_as_many_pipelines_as_the_limit_are_served_and_one_more_is_refused(clients: Clients) -> None:
    for number in range(MAX_JOBS):
        assert isinstance(clients.say(b"%d" % number, produces(pipeline=f"p{number}"))[0], m.ProducerWelcome)
    (refused,) = clients.say(b"x", produces(pipeline="one more"))
    assert isinstance(refused, m.Refused)
    assert refused.kind == "limits"
    assert "'one more' is one too many" in refused.text
    assert len(clients.core.jobs) == MAX_JOBS
    assert isinstance(clients.say(b"y", produces(pipeline="p0"))[0], m.ProducerWelcome)


def test_pipelines_do_not_mix(clients: Clients) -> None:
    clients.say(b"a", produces(pipeline="train"))
    clients.say(b"c", replace(consumes(), pipeline="val"))
    deliver(clients, b"a")
    assert clients.core.jobs["train"].queued_bytes > 0
    assert clients.core.jobs["val"].queued_bytes == 0


# ---------------------------------------------------------------------- bad messages


GOOD = m.encode(m.Done(0, 0.0))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "frames"),
        ([b"hello"], "frames"),
        ([b"GET / HTTP/1.1", b""], "limits"),
        ([b"abcde", b""], "magic"),
        ([m.MAGIC + b"\x63\x08", GOOD[1]], "version"),
        ([m.MAGIC + bytes([m.VERSION, 99]), GOOD[1]], "kind"),
        ([GOOD[0], b"\xc1"], "body"),
        ([GOOD[0], b"\x80"], "body"),
        ([*GOOD, b"block"], "frames"),
        ([GOOD[0], b"x" * (m.MAX_CONTROL_BODY + 1)], "limits"),
        ([*GOOD, *[b""] * 5000], "limits"),
    ],
)
def test_a_bad_message_is_counted_by_its_reason_and_the_connection_forgotten(
    clients: Clients, frames: list[bytes], reason: str
) -> None:
    clients.say(b"a", produces())
    (refused,) = clients.send(b"a", frames)
    assert isinstance(refused, m.Refused)
    assert refused.kind == reason
    assert clients.core.tally.bad == {reason: 1}
    assert b"a" not in clients.core.peers


def test_a_connection_is_told_once_that_its_messages_are_bad_and_each_is_counted(clients: Clients) -> None:
    answers = [clients.send(b"a", [b"abcde", b""]) for _ in range(50)]
    assert [len(answer) for answer in answers] == [1] + [0] * 49
    assert clients.core.tally.bad["magic"] == 50


def test_bad_messages_are_logged_once_for_each_connection(clients: Clients, caplog: pytest.LogCaptureFixture) -> None:
    for connection in (b"a", b"b"):
        for _ in range(10):
            clients.send(connection, [b"abcde", b""])
    assert len(caplog.records) == 2


def test_an_honest_client_that_was_misread_is_asked_and_comes_back(clients: Clients) -> None:
    hello = produces()
    clients.say(b"a", hello)
    clients.send(b"a", [b"abcde", b""])
    assert clients.say(b"a", m.WorkerBeat(0, 0, 0, 0.0)) == [m.Who()]
    assert isinstance(clients.say(b"a", hello)[0], m.ProducerWelcome)


@pytest.mark.parametrize("message", [m.Offer(1, [1]), m.Fail(1, "", "", "", "", False), m.Finish(1)])
def test_a_consumer_may_not_send_what_a_producer_sends(clients: Clients, message: m.Message) -> None:
    clients.say(b"c", consumes())
    clients.say(b"c", message)
    assert clients.core.tally.bad == {"kind": 1}


def test_a_producer_may_not_send_what_a_consumer_sends(clients: Clients) -> None:
    clients.say(b"w", produces())
    clients.say(b"w", m.Done(0, 0.0))
    assert clients.core.tally.bad == {"kind": 1}


def test_a_client_may_not_send_what_only_a_broker_says(clients: Clients) -> None:
    clients.say(b"w", produces())
    clients.say(b"w", m.Credit(1, 1, 1))
    assert clients.core.tally.bad == {"kind": 1}


def test_a_block_that_is_no_block_is_refused_before_it_reaches_anybody(clients: Clients) -> None:
    clients.say(b"w", produces())
    clients.say(b"w", m.Offer(1, [7]))
    clients.say(b"w", m.Block(1, 1, []), [b"garbage"])
    assert clients.core.tally.bad == {"body": 1}
    assert clients.core.budget.used == 0


def test_a_block_of_another_number_of_datapoints_than_announced_is_refused(clients: Clients) -> None:
    clients.say(b"w", produces())
    block = encode_block([[1], [2]])
    clients.say(b"w", m.Offer(1, [block.nbytes]))
    (refused,) = clients.say(b"w", m.Block(1, 3, []), [bytes(memoryview(frame)) for frame in block.frames])
    assert isinstance(refused, m.Refused)
    assert "2 datapoints was announced as 3" in refused.text


@pytest.mark.parametrize("change", [{"lag": "hurry"}, {"hwm": 0}])
def test_a_consumer_that_asks_for_the_impossible_is_told_so_and_not_counted_as_hostile(
    clients: Clients, change: dict[str, Any]
) -> None:
    (refused,) = clients.say(b"c", replace(consumes(), **change))
    assert isinstance(refused, m.Refused)
    assert refused.kind == "config"
    assert not clients.core.tally.bad


def test_a_consumer_that_was_given_up_is_told_so_even_if_it_was_told_off_before(clients: Clients) -> None:
    hello = consumes("away")
    clients.send(b"a", [b"abcde", b""])
    clients.say(b"a", hello)
    clients.say(b"b", consumes("other"))
    clients.say(b"w", produces())
    deliver(clients, b"w")
    clients.core.unreachable(b"a")
    clients.wait(LIVENESS + 2)
    clients.send(b"a", [b"abcde", b""])
    back = replace(hello, broker=clients.core.instance, received=1)
    answers = clients.say(b"a", back)
    assert [answer.kind for answer in answers if isinstance(answer, m.Refused)] == ["expired"]


# ---------------------------------------------------------------------- time


def test_everybody_hears_a_beat(clients: Clients) -> None:
    clients.say(b"w", produces())
    clients.say(b"c", consumes())
    told = clients.wait(1.5 * BEAT)
    assert m.Beat() in told[b"w"]
    assert any(isinstance(message, m.ConsumerBeat) for message in told[b"c"])


def test_a_consumer_whose_pipeline_has_no_worker_hears_which_ones_have_while_it_has_none(clients: Clients) -> None:
    clients.say(b"w", produces(pipeline="train"))
    clients.say(b"c", consumes())

    def others() -> list[str]:
        *_, beat = [each for each in clients.wait(1.5 * BEAT)[b"c"] if isinstance(each, m.ConsumerBeat)]
        return beat.others

    assert others() == ["train"]
    for number in range(20):  # a name may have any length, and there may be many
        clients.say(b"%d" % number, produces(pipeline=f"{number}" + 100 * "x"))
    assert [len(name) for name in others()] == [5] + 7 * [80]
    clients.say(b"x", produces())
    assert others() == []


def test_a_rank_whose_workers_cannot_be_reached_or_died_hears_that_and_no_advice_to_ask_for_its_own_pipeline(
    clients: Clients,
) -> None:
    hello = produces(passes=0)
    clients.say(b"w", hello)
    clients.say(b"v", produces(pipeline="val"))
    clients.say(b"r", ranks())

    def beat() -> m.ConsumerBeat:
        *_, last = [each for each in clients.wait(1.5 * BEAT)[b"r"] if isinstance(each, m.ConsumerBeat)]
        return last

    assert (beat().producers, beat().lost, beat().others) == (1, [], [])
    clients.core.unreachable(b"w")
    assert (beat().producers, beat().lost, beat().others) == (0, ["host/w (its connection is gone)"], ["val"])
    clients.say(b"s", m.Obituary(hello.session, "exit status 1", [], "default"))
    assert (beat().producers, beat().lost, beat().others) == (0, ["host/w (exit status 1)"], ["val"])


def test_a_rank_whose_workers_cannot_serve_it_hears_why_and_no_advice_to_ask_for_its_own_pipeline(
    clients: Clients,
) -> None:
    clients.say(b"w", produces(passes=0))
    clients.say(b"r", ranks())
    clients.say(b"w", e.Source("", 0, False, "", 0, 0, False, False, "it has no length"))
    *_, beat = [each for each in clients.wait(1.5 * BEAT)[b"r"] if isinstance(each, m.ConsumerBeat)]
    assert (beat.producers, beat.lost, beat.refused, beat.others) == (0, [], ["host/w (it has no length)"], [])


def test_a_broker_that_was_suspended_for_an_hour_expires_nobody(clients: Clients) -> None:
    hello = produces()
    clients.say(b"w", hello)
    clients.core.unreachable(b"w")
    worker = clients.core.jobs["default"].intake.workers[hello.session]
    clients.core.tick(clients.time + 3600.0)
    assert clients.core.now <= 1.0
    states = [worker.state]
    for second in range(int(LIVENESS) + 2):
        clients.core.tick(clients.time + 3601.0 + second)
    states.append(worker.state)
    assert states == [State.SUSPECT, State.BROKEN], "time that the broker saw pass does count"


def test_last_seen_is_wall_time_and_follows_what_a_worker_says(clients: Clients) -> None:
    clients.say(b"w", produces("w"))
    clients.wall += 5
    clients.say(b"w", m.WorkerBeat(0, 0, 0, 0.0))
    assert clients.core.tally.producer("host/w").last_seen == clients.wall


# ---------------------------------------------------------------------- leaving and dying


def test_a_connection_that_cannot_be_reached_makes_its_worker_suspect_and_frees_its_bytes(clients: Clients) -> None:
    hello = produces()
    clients.say(b"w", hello)
    clients.say(b"w", m.Offer(1, [1000]))
    assert clients.core.budget.used > 0
    clients.core.unreachable(b"w")
    assert clients.core.budget.used == 0
    assert clients.core.jobs["default"].intake.workers[hello.session].state is State.SUSPECT


def test_an_old_connection_that_is_found_dead_does_not_hurt_the_new_one(clients: Clients) -> None:
    hello = produces()
    clients.say(b"old", hello)
    clients.say(b"new", hello)
    clients.core.unreachable(b"old")
    assert clients.core.jobs["default"].intake.workers[hello.session].state is State.LIVE


def test_an_unknown_connection_that_is_found_dead_changes_nothing(clients: Clients) -> None:
    clients.core.unreachable(b"nobody")
    assert clients.answers() == {}


def test_an_obituary_breaks_the_pass_of_a_finite_worker_at_once(clients: Clients) -> None:
    hello = produces("w")
    clients.say(b"c", consumes())
    clients.say(b"w", hello)
    clients.core.receive(b"supervisor", m.encode(m.Obituary(hello.session, "killed by SIGKILL")))
    (end,) = [message for message in clients.answers()[b"c"] if isinstance(message, m.DeliverEnd)]
    assert end.broken == ["host/w: killed by SIGKILL"]


def test_an_obituary_of_somebody_unknown_changes_nothing(clients: Clients) -> None:
    assert clients.say(b"x", m.Obituary(secrets.token_bytes(16), "died")) == []
    assert not clients.core.tally.errors


def test_a_worker_that_says_goodbye_is_gone_without_having_been_lost(clients: Clients) -> None:
    hello = produces(passes=0)
    clients.say(b"w", hello)
    clients.say(b"w", m.Offer(1, [1000]))
    clients.say(b"w", m.Bye(0, 0))
    assert clients.core.jobs["default"].intake.workers[hello.session].state is State.GONE
    assert clients.core.budget.used == 0
    assert not clients.core.tally.errors
    assert not clients.core.peers
    assert not clients.core.routes


def test_a_consumer_that_says_goodbye_gives_back_what_it_had(clients: Clients) -> None:
    clients.say(b"c", consumes())
    clients.say(b"w", produces())
    deliver(clients, b"w")
    clients.say(b"c", m.Bye(0, 0))
    answers = clients.say(b"d", consumes("d"))
    assert [message.again for message in answers if isinstance(message, m.Deliver)] == [False]


def test_a_broker_that_drains_grants_nothing_more(clients: Clients) -> None:
    clients.say(b"w", produces())
    clients.core.stop_accepting()
    assert clients.say(b"w", m.Offer(1, [10])) == []
    assert clients.core.budget.used == 0


def test_a_worker_is_told_of_its_credit_before_its_block_is_copied_for_a_consumer(clients: Clients) -> None:
    clients.say(b"c", consumes())
    clients.say(b"w", produces())
    block = encode_block([[1, b"x" * 100]])
    clients.say(b"w", m.Offer(1, [block.nbytes]))
    clients.core.receive(b"w", [*m.encode(m.Block(1, 1, [])), *map(bytes, block.frames)])
    clients.core.receive(b"w", m.encode(m.Offer(2, [block.nbytes])))
    told = [(connection, type(message)) for connection, message, _ in clients.core.drain()]
    assert told == [(b"w", m.Credit), (b"c", m.Deliver)]


# ---------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queue_bytes": MIN_BUDGET - 1}, "queue_bytes"),
        ({"max_frame": MIN_BUDGET - 1}, "max_frame"),
        ({"liveness": 0.0}, "liveness"),
    ],
)
def test_what_cannot_work_is_refused_with_the_number_and_the_bound(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text} is "):
        BrokerConfig(**options)


def test_no_frame_may_be_larger_than_the_budget() -> None:
    assert BrokerConfig(queue_bytes=MIN_BUDGET, max_frame=1 << 30).limits.max_frame == MIN_BUDGET


def test_a_goodbye_that_is_read_after_its_connection_was_found_gone_still_counts() -> None:
    core = Core(BrokerConfig(), wall=lambda: 0.0)
    core.tick(0.0)
    session = secrets.token_bytes(16)
    hello = m.ConsumerHello(session, "c", "h", 1, "default", "g", 50, "wait", 1, b"", 0, 0)
    core.receive(b"a", m.encode(hello))
    group = core.jobs["default"].groups["g"]
    assert session in group.consumers
    core.unreachable(b"a")
    assert session in group.consumers, "it may come back"
    core.receive(b"a", m.encode(m.Bye(0, 0)))
    assert session not in group.consumers
