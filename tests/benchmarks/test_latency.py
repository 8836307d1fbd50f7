"""`python -m benchmarks latency`, in one tiny round. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_latencies_are_measured_at_a_tenth_of_the_load(bench: Callable[..., Any], tmp_path: Path) -> None:
    sides = ["--side", "ours", "--side", "standalone", "--side", "limit_raw"]
    run = bench("latency", tmp_path, "latency", "--rounds", "1", "--seconds", "0.3", "--case", "tokens", *sides)
    assert set(run.results["tokens"]) == {"ours", "standalone", "limit_raw"}
    for (figures,) in run.results["tokens"].values():
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
        assert figures["items"] > 0
    assert len(run.table) == 2 + 3


def test_starting_is_measured_up_to_the_first_datapoint(bench: Callable[..., Any], tmp_path: Path) -> None:
    run = bench("latency", tmp_path, "latency", "--rounds", "1", "--seconds", "0.3", "--case", "start")
    assert set(run.results["start"]) == {"embedded", "connecting"}
    for (figures,) in run.results["start"].values():
        assert 0 < figures["import_s"] < figures["seconds"]
    assert [line.split("|")[4].strip() for line in run.table[2:]] == ["≤ 0.5"] * 2
