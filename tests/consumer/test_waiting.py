"""Owns the tests of the measure of waiting and of the advice that follows from it."""

from __future__ import annotations

import socket

import pytest

from dfserve.consumer.waiting import PERIOD, WaitMeter, absent, combined, missing
from dfserve.wire.messages import ConsumerBeat


def beat(
    *,
    producers: int = 2,
    finished: int = 0,
    lost: tuple[str, ...] = (),
    queued: int = 0,
    occupancy: float = 0.0,
    others: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
) -> ConsumerBeat:
    return ConsumerBeat(7, producers, finished, list(lost), queued, occupancy, list(others), list(refused))


def advice(waited: float, last: ConsumerBeat | None, minutes: float = 1.0) -> str | None:
    meter = WaitMeter(100.0)
    meter.add(waited)
    return meter.advice(100.0 + minutes * PERIOD, last)


def test_a_trainer_that_waits_for_a_tenth_of_the_time_or_less_hears_nothing() -> None:
    assert advice(6.0, beat()) is None
    assert advice(6.1, beat()) is not None


def test_nothing_is_said_before_a_minute_has_passed() -> None:
    assert advice(59.0, beat(), minutes=0.99) is None


def test_it_says_how_much_of_which_time_was_waited() -> None:
    assert str(advice(15.0, beat())).startswith("the trainer waited 25% of the last 60 s: ")
    assert str(advice(60.0, beat(), minutes=2.0)).startswith("the trainer waited 50% of the last 120 s: ")


def test_a_wait_that_is_counted_twice_never_makes_more_than_all_of_the_time() -> None:
    assert "waited 100% of" in str(advice(90.0, beat()))


def test_it_is_said_once_a_minute_and_each_minute_counts_by_itself() -> None:
    meter = WaitMeter(0.0)
    meter.add(30.0)
    lines = [meter.advice(now, beat()) for now in (60.0, 61.0, 119.0, 120.0)]
    assert [line is not None for line in lines] == [True, False, False, False]
    meter.add(12.0)
    assert "20%" in str(meter.advice(180.0, beat()))


def test_the_total_goes_on_over_the_minutes() -> None:
    meter = WaitMeter(0.0)
    meter.add(30.0)
    meter.advice(60.0, beat())
    meter.add(1.5)
    assert meter.total == 31.5


@pytest.mark.parametrize(
    ("last", "side", "next_step"),
    [
        (None, "the broker has said nothing", "is its address right?"),
        (beat(producers=0), "no producer is connected (none has come yet to this broker)", "start `dfserve produce`"),
        (beat(producers=0, finished=3), "no producer is connected (3 ended)", "start `dfserve produce`"),
        (beat(producers=0, lost=("a/0 (killed)",)), "(gone: a/0 (killed))", "start `dfserve produce`"),
        (
            beat(producers=0, refused=("a/0 (other data)",), lost=("b/0 (left)",)),
            "no producer that can serve this pipeline is connected (these cannot: a/0 (other data); gone: b/0 (left))",
            "start `dfserve produce`",
        ),
        (
            beat(producers=0, others=("train", "val")),
            "no producer of this pipeline is connected (none has come yet to this broker); the producers that are here"
            " serve 'train'",
            "ask for that with pipeline=, or start `dfserve produce NAME=",
        ),
        (beat(occupancy=0.02), "the pipelines are slower than the trainer (2 producing, queue 2% full)", "--workers"),
        (beat(occupancy=0.97), "they reach the trainer too slowly (2 producing, queue 97% full)", "raise hwm"),
    ],
)
def test_it_says_which_side_is_slow_and_what_to_do_next(last: ConsumerBeat | None, side: str, next_step: str) -> None:
    line = str(advice(30.0, last))
    assert side in line
    assert next_step in line


@pytest.mark.parametrize(
    ("last", "who"),
    [
        (None, "nothing was heard from a broker at tcp://t:1 for 9 s; start it, or check the address"),
        (
            beat(producers=0),
            "no producer is connected to tcp://t:1 (none has come yet to this broker); start one with `dfserve produce",
        ),
        (
            beat(producers=0, others=("train",)),
            "no producer of this pipeline is connected to tcp://t:1 (none has come yet to this broker); the producers"
            " that are here serve 'train': ask",
        ),
        (beat(producers=0, finished=1), "(1 ended, 2 clean ends are needed for the end of the stream)"),
        (beat(producers=0, lost=("a/0 (killed by SIGKILL)",)), "(gone: a/0 (killed by SIGKILL))"),
        (
            beat(producers=3, queued=0),
            "although 3 producers are connected to tcp://t:1: their pipelines have sent nothing",
        ),
    ],
)
def test_the_error_after_a_timeout_says_who_is_missing_and_since_when(last: ConsumerBeat | None, who: str) -> None:
    text = missing(last, "tcp://t:1", 9.0, 2)
    assert who in text
    assert "9 s" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "[::]"])
def test_who_hosts_at_every_address_is_told_a_name_that_a_producer_can_connect_to(host: str) -> None:
    text = missing(beat(producers=0), f"tcp://{host}:8877 and ipc:///s", 9.0, 1)
    assert f"--to tcp://{socket.gethostname()}:8877`" in text


def test_a_rank_that_waits_hears_who_is_gone_and_who_serves_another_pipeline_where_nobody_serves_its_own() -> None:
    assert absent(None) == absent(beat(producers=0)) == absent(beat(lost=("a/0 (killed)",))) == ""
    text = absent(beat(producers=0, lost=("a/0 (killed)", "a/1 (left)"), others=("val",)))
    assert text.startswith(" (gone: a/0 (killed), a/1 (left)); the producers that are here serve 'val': ask")


def test_what_several_brokers_say_is_one_word_for_the_advice() -> None:
    first = beat(producers=2, finished=1, lost=("a/0",), queued=5, occupancy=0.25, others=("x", "y"))
    second = beat(producers=3, finished=0, lost=("b/0", "b/1"), queued=7, occupancy=0.75, others=("y",))
    whole = combined([first, None, second])
    assert whole is not None
    assert (whole.producers, whole.finished, whole.queued) == (5, 1, 12)
    assert (whole.lost, whole.others) == (["a/0", "b/0", "b/1"], ["x", "y"])
    assert whole.occupancy == 0.75, "data that are there and do not get here are what is waited for"


def test_what_one_broker_says_is_its_own_word_and_of_none_there_is_none() -> None:
    only = beat()
    assert combined([None, only]) is only
    assert combined([None, None]) is None
