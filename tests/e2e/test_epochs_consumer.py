"""Owns the tests of epochs mode in which a trainer is killed, stopped, or leaves, and what its next run begins with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

N = 1500
IN_DOUBT = (2 << 20) // 4000 + 3 * 24  # datapoints: what a rank claims ahead of need, and some blocks


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_a_consumer_killed_between_claim_and_hand_out_is_followed_by_one_that_repeats_nothing(
    rig: Any, tcp_address: str, order: str
) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    first = rig.trainer(tcp_address, "--hold-after", "300", order=order, split_size=16)
    first.wait_until_said("holding")
    first.kill()
    source = rig.consumer(tcp_address, order=order, split_size=16, resume="broker")
    rows = [*rig.rows_of(first), *rig.read(source)]
    missing = rig.whole(N) - rig.multiset(rows)
    assert rig.multiset(rows) <= rig.whole(N), "nothing twice"
    report = rig.report_of(source, 0)
    assert missing.total() <= report["in_doubt"] <= IN_DOUBT
    assert rig.multiset(rig.read(source)) == rig.whole(N), "the next epoch is whole"


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_a_consumer_killed_between_claim_and_hand_out_loses_nothing_with_its_checkpoint(
    rig: Any, tcp_address: str, tmp_path: Path, order: str
) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    state = str(tmp_path / "state")
    rows: list[Any] = []
    load: tuple[str, ...] = ()
    for save, hold in ((300, 301), (301, 350), (1, 40)):
        flags = ("--save", state, "--save-after", str(save), "--hold-after", str(hold), *load)
        trainer = rig.trainer(tcp_address, *flags, order=order, split_size=16)
        trainer.wait_until_said("holding")
        trainer.kill()
        rows += rig.rows_of(trainer)[:save]
        load = ("--load", state)
    last = rig.trainer(tcp_address, *load, "--epochs", "2", order=order, split_size=16)
    assert last.wait() == 0, last.output[-2000:]
    rows += rig.rows_of(last)
    assert rig.multiset(rows) == rig.whole(N) + rig.whole(N), "two epochs"


def test_a_rank_whose_process_was_killed_can_be_started_at_once(rig: Any, tcp_address: str, tmp_path: Path) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, n=N, nbytes=4000)
    first = rig.trainer(tcp_address, "--hold-after", "100", split_size=16)
    first.wait_until_said("holding")
    second = rig.trainer(tcp_address, split_size=16, resume="fresh")
    first.kill()
    assert second.wait() == 0, second.output[-2000:]
    assert rig.multiset(rig.rows_of(second)) == rig.whole(N)


def test_a_trainer_that_is_stopped_for_longer_than_a_lease_lasts_expires_nothing(
    rig: Any, tcp_address: str, until: Callable[..., Any]
) -> None:
    lease_time = 8.0  # seconds: a worker that is late by less is not
    rig.broker(tcp_address, "--lease-time", f"{lease_time}s", "--liveness", "1s")
    rig.produce(tcp_address, workers=2, n=N, nbytes=4000)
    # It stops itself: whoever looks at what it has read is late, and may find that it has read all.
    trainer = rig.trainer(tcp_address, "--stop-at", "200", "--await-reports", split_size=16)
    process = psutil.Process(trainer.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED, "the trainer to stop")
    threading.Event().wait(1.5 * lease_time)
    assert process.status() == psutil.STATUS_STOPPED
    trainer.signal(signal.SIGCONT)
    assert trainer.wait() == 0, trainer.output[-2000:]
    assert rig.multiset(rig.rows_of(trainer)) == rig.whole(N)
    (end,) = rig.ends_of(trainer)
    report = end["report"]
    assert (report["expired"], report["redelivered"], report["fenced"]) == (0, 0, 0)
    assert report["datapoints"] == len(rig.rows_of(trainer)) == end["count"]
