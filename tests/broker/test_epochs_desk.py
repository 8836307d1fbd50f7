"""Owns the tests of many groups in epochs mode at one broker, at once and one after the other, against the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from dfserve import ConfigError, RemoteDataZMQ
from dfserve.broker.epochs_desk import LEAST_SHARE, MAX_JOBS
from dfserve.testing import LocalBroker

ITEMS = [[number] for number in range(12)]
AT_ONCE = LEAST_SHARE.bit_length() - 1


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker(queue_bytes=64 << 20) as broker:
        yield broker


def loader(broker: LocalBroker, group: str, **options: Any) -> RemoteDataZMQ:
    return broker.consumer(mode="epochs", group=group, split_size=2, **options)


def numbers(data: RemoteDataZMQ) -> list[int]:
    return sorted(number for (number,) in data)


def leave_without_a_word(data: RemoteDataZMQ) -> None:
    """End as a process does that is killed."""
    for session in data._sessions:
        session.close()
    data._sessions = []


def test_any_number_of_groups_may_come_one_after_the_other_beside_one_that_stays(broker: LocalBroker) -> None:
    with broker.serving(ITEMS), loader(broker, "stays") as stays:
        steps = iter(stays)
        before = [next(steps)[0] for _ in range(3)]
        for run in range(MAX_JOBS + 6):
            with loader(broker, f"run {run}") as data:
                assert numbers(data) == list(range(12))
        assert sorted([*before, *(number for (number,) in steps)]) == list(range(12))
        assert numbers(stays) == list(range(12))


def test_what_a_group_that_rested_had_done_is_known_when_it_comes_back(broker: LocalBroker) -> None:
    with broker.serving(ITEMS):
        with loader(broker, "one") as one:
            had = [number for _, (number,) in zip(range(5), one, strict=False)]
        with loader(broker, "other") as other:  # for which the first one has to rest
            assert numbers(other) == list(range(12))
        with loader(broker, "one") as again, pytest.raises(ConfigError, match="choose resume='broker'"):
            next(again)
        with loader(broker, "one", resume="broker") as again:
            assert sorted(had + numbers(again)) == list(range(12))


def test_one_that_left_without_a_word_may_rest_too_and_nothing_comes_twice(broker: LocalBroker) -> None:
    large = [[number, np.zeros(500_000, np.uint8)] for number in range(60)]  # too many to be claimed ahead
    with broker.serving(large):
        one = loader(broker, "one")
        had = [next(one)[0] for _ in range(5)]
        leave_without_a_word(one)
        with loader(broker, "other") as other:
            assert sorted(number for number, _ in other) == list(range(60))
        with loader(broker, "one", resume="broker") as again:
            rest = [number for number, _ in again]
            assert again.report is not None
            assert again.report["delivered"] == 60
    assert not set(had) & set(rest)
    assert 0 < len(rest) == len(set(rest))


def test_one_too_many_at_a_time_is_refused_and_changes_nothing_for_the_others(broker: LocalBroker) -> None:
    with broker.serving(ITEMS), ExitStack() as stack:
        at_work = [stack.enter_context(loader(broker, f"group {number}")) for number in range(AT_ONCE)]
        had = [next(data)[0] for data in at_work]
        with (
            loader(broker, "one more") as refused,
            pytest.raises(ConfigError, match=f"{AT_ONCE} groups in epochs mode are at work at this broker"),
        ):
            next(refused)
        for data, first in zip(at_work, had, strict=True):
            assert sorted([first, *numbers(data)]) == list(range(12))
        at_work[0].close()
        with loader(broker, "one more") as admitted:
            assert numbers(admitted) == list(range(12))


def test_data_that_have_changed_begin_anew_once_all_producers_have_them(
    broker: LocalBroker, until: Callable[..., Any]
) -> None:
    with broker.serving(ITEMS), loader(broker, "one") as one:
        assert numbers(one) == list(range(12))
    until(lambda: broker.metrics()["dfserve_producers"] == 0, "the worker to be gone")
    with broker.serving([*ITEMS, [12]]):
        with (
            loader(broker, "one", resume="broker") as again,
            pytest.raises(ConfigError, match=r"12 items .* 13 .* now.* choose resume='fresh'"),
        ):
            next(again)
        with loader(broker, "one", resume="fresh") as again:
            assert numbers(again) == list(range(13))
            assert again.report is not None
            assert again.report["delivered"] == 13


def test_where_nothing_was_handed_out_there_is_nothing_that_other_data_could_contradict(
    broker: LocalBroker, until: Callable[..., Any]
) -> None:
    options: dict[str, Any] = {"world": 2, "even": "drop", "order": "strict", "resume": "broker"}
    with loader(broker, "two", rank=0, **options) as zero, loader(broker, "two", rank=1, **options) as one:
        with broker.serving(ITEMS):
            zero.reset_state()
            assert broker._broker is not None
            job = broker._broker.core.epochs.jobs["default", "two"]
            until(lambda: job.production.source is not None, "the worker to say what it has")
        until(lambda: broker.metrics()["dfserve_producers"] == 0, "the worker to be gone")
        with broker.serving([*ITEMS, [12]]):
            one.reset_state()
            assert len({number for pair in zip(zero, one, strict=True) for (number,) in pair}) == 12
