"""Owns the tests of epochs mode in which what makes the datapoints dies, hangs, comes and goes."""

from __future__ import annotations

import signal
from typing import Any

import psutil

N = 1500  # items; with 4 KB each they are much more than the broker's budget, so that nobody is ahead of the consumer


def test_workers_are_killed_again_and_again_and_then_their_whole_daemon(rig: Any) -> None:
    source, address = rig.hosting(split_size=16)
    first = rig.produce(address, workers=3, n=N, nbytes=4000)
    others: list[Any] = []

    def kill_one() -> None:
        rig.kill(first, rig.until(first.children, "a worker")[0])

    def replace_all() -> None:
        others.append(rig.produce(address, workers=2, n=N, nbytes=4000))
        first.kill()

    def kill_another() -> None:
        rig.kill(others[0], rig.workers(others[0], 2)[0])

    events = dict.fromkeys(range(100, 900, 100), kill_one)
    rows = rig.read(source, {**events, 1000: replace_all, 1200: kill_another})
    assert rig.multiset(rows) == rig.whole(N)
    report = rig.report_of(source, 0)
    assert (report["delivered"], report["filtered"]) == (N - rig.filtered(N), rig.filtered(N))
    assert report["datapoints"] == len(rows)
    assert report["redelivered"] > 0
    assert rig.multiset(rig.read(source)) == rig.whole(N), "and the next epoch"


def test_a_worker_that_is_stopped_past_its_lease_loses_it_and_its_late_blocks_are_fenced(
    rig: Any, metrics_port: int
) -> None:
    source, address = rig.hosting(split_size=16, order="strict", metrics_port=metrics_port)
    producer = rig.produce(address, workers=2, n=N, nbytes=4000, pause=0.001)
    stopped: list[psutil.Process] = []

    def stop() -> None:
        rig.until(lambda: rig.metric(metrics_port, "dfserve_producers") == 2, "both workers")
        stopped.append(rig.a_busy_worker(producer, metrics_port))  # another may not be leased anything before it stops
        stopped[0].suspend()

    def go_on() -> None:
        stopped[0].resume()
        rig.until(lambda: rig.metric(metrics_port, "dfserve_blocks_fenced_total") > 0, "a late block")

    rows = rig.read(source, {100: stop, 1000: go_on})
    assert rig.multiset(rows) == rig.whole(N)
    report = rig.report_of(source, 0)
    assert report["expired"] > 0
    assert report["redelivered"] >= report["expired"]
    assert report["fenced"] > 0
    assert rig.metric(metrics_port, "dfserve_split_leases_expired_total") >= report["expired"]
    assert rig.multiset(rig.read(source)) == rig.whole(N), "and the next epoch"


def test_producers_are_scaled_from_one_to_four_to_none_to_one_in_mid_epoch(rig: Any) -> None:
    source, address = rig.hosting(split_size=16)
    fleet = [rig.produce(address, n=N, nbytes=4000)]

    def four() -> None:
        fleet.extend(rig.produce(address, n=N, nbytes=4000) for _ in range(3))
        for each in fleet:
            rig.workers(each, 1)

    def none() -> None:
        for each in fleet[:2]:
            each.kill()
        for each in fleet[2:]:
            each.signal(signal.SIGTERM)
        assert [each.wait() for each in fleet[2:]] == [0, 0]

    def one() -> None:
        fleet.append(rig.produce(address, n=N, nbytes=4000))

    rows = []
    for number, which, drawn, _ in source:
        rows.append((number, which, drawn))
        if len(rows) == 300:
            four()
        if len(rows) == 700:
            none()
            one()
    assert rig.multiset(rows) == rig.whole(N)
    assert rig.report_of(source, 0)["datapoints"] == len(rows)


def test_an_item_that_kills_its_worker_three_times_is_quarantined(rig: Any, metrics_port: int) -> None:
    source, address = rig.hosting(split_size=16, on_error="skip", order="strict", metrics_port=metrics_port)
    rig.produce(address, workers=2, n=400, poison=130)
    rows = rig.read(source)
    assert rig.multiset(rows) == rig.whole(400, without=130)
    report = rig.report_of(source, 0)
    assert report["quarantined"] == 1
    assert report["filtered"] == rig.filtered(400)
    assert source.errors == 1
    assert rig.metric(metrics_port, "dfserve_items_quarantined_total") >= 1, "workers may be at the next epoch"
