"""`python -m benchmarks scaling`, in one tiny round. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_what_goes_through_a_broker_is_counted_by_its_size(bench: Callable[..., Any], tmp_path: Path) -> None:
    sides = ["--side", "one", "--side", "producers16", "--side", "groups2"]
    run = bench("scaling", tmp_path, "scaling", "--rounds", "1", "--seconds", "0.5", "--case", "tokens", *sides)
    rounds = run.results["tokens"]
    assert list(rounds) == ["one", "producers16", "groups2"]
    for (figures,) in rounds.values():
        assert figures["items"] > 0
        assert figures["bytes"] == pytest.approx(figures["items"] * 512 * 4)
        assert figures["received_bytes"] > 0
        assert figures["broker_cpu_s"] > 0
    aims = [line for line in run.table if "broker CPU s/GB |" in line and "≤" in line]
    assert [line.split("|")[2].strip() for line in aims] == ["16 producers (2 processes)", "2 groups"]


def test_two_brokers_are_counted_together_and_set_beside_one_with_as_many_producers(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    sides = ["--side", "producers2", "--side", "brokers2"]
    run = bench("scaling", tmp_path, "scaling", "--rounds", "1", "--seconds", "0.5", "--case", "tokens", *sides)
    for (figures,) in run.results["tokens"].values():
        assert figures["bytes"] == pytest.approx(figures["items"] * 512 * 4)
        assert figures["broker_cpu_s"] > 0
    (aim,) = [line for line in run.table if "total throughput |" in line]
    assert [cell.strip() for cell in aim.split("|")[2:4]] == ["2 producers, 2 brokers", "2 producers, 1 broker"]
