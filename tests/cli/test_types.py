"""Owns the tests of how sizes, durations and numbers of workers are written."""

from __future__ import annotations

import os
from typing import Any

import click
import pytest

from dfserve.cli.types import BITRATE, DURATION, RATE, SIZE, WORKERS, human_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1B", 1),
        ("1KiB", 1 << 10),
        ("512MiB", 512 << 20),
        ("1GiB", 1 << 30),
        ("64MB", 64_000_000),
        ("64mb", 64_000_000),
        ("2 GB", 2_000_000_000),
        ("1.5KiB", 1536),
        (" 7kB ", 7000),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, count: int) -> None:
    found = SIZE.convert(text, None, None)
    assert (found, type(found)) == (count, int)


@pytest.mark.parametrize("text", ["", "GiB", "1 GIGA", "-1", "1,5MB", "1e9", "nan", "1GiB2"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size; write it like 1GiB, 512MiB or 64MB"):
        SIZE.convert(text, None, None)


@pytest.mark.parametrize(("text", "rate"), [("2500", 2500.0), ("2.5k", 2500.0), ("1M", 1e6), ("0.25", 0.25)])
def test_a_rate_is_a_number_or_thousands(text: str, rate: float) -> None:
    assert RATE.convert(text, None, None) == rate


@pytest.mark.parametrize(("text", "bits"), [("1Gbit", 1e9), ("100 mbit", 1e8), ("2.5Gbit", 2.5e9), ("9600bit", 9600)])
def test_a_bitrate_is_a_number_with_a_unit(text: str, bits: float) -> None:
    assert BITRATE.convert(text, None, None) == bits


@pytest.mark.parametrize(("kind", "text"), [(RATE, "fast"), (RATE, "nan"), (BITRATE, "10"), (BITRATE, "1GB")])
def test_what_is_no_rate_or_bitrate_is_refused_with_an_example(kind: Any, text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"is not a {kind.name}; write it like {kind.example}"):
        kind.convert(text, None, None)


@pytest.mark.parametrize(("kind", "text"), [(RATE, "0"), (RATE, "0.0k"), (BITRATE, "0Gbit")])
def test_a_rate_of_nothing_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(click.BadParameter, match="is above 0"):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("10s", 10.0), ("2m", 120.0), ("500ms", 0.5), ("1.5h", 5400.0), ("0", 0.0), ("3 S", 3.0)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "s", "10 days", "-1s", "soon", "1m30s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration; write it like 10s, 2m or 500ms"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize("kind", [SIZE, DURATION])
def test_a_number_that_is_one_already_stays_it(kind: Any) -> None:
    assert kind.convert(5, None, None) == 5


def test_a_number_of_workers_is_a_number_from_one() -> None:
    assert WORKERS.convert("7", None, None) == 7
    assert WORKERS.convert(2, None, None) == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a number of workers; give one from 1, or auto"):
        WORKERS.convert(text, None, None)


def test_auto_is_one_worker_for_each_core_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3, 5}, raising=False)
    assert WORKERS.convert("auto", None, None) == 3


def test_auto_counts_all_cores_where_the_system_does_not_say_which_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert WORKERS.convert("auto", None, None) == 6


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2.5e9, "2.5 GB"), (5e12, "5000.0 GB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(count) == text
