"""`python -m benchmarks trainer`, with one kind of datapoint. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_trainers_process_is_measured(bench: Callable[..., Any], tmp_path: Path) -> None:
    sides = ("datapoints", "batches", "epochs_holding", "thread")
    options = [option for side in sides for option in ("--side", side)]
    run = bench("trainer", tmp_path, "trainer", "--rounds", "1", "--seconds", "0.5", "--case", "sequences", *options)
    found = {side: figures for side, (figures,) in run.results["sequences"].items()}
    assert set(found) == set(sides)
    assert all(figures["items"] > 0 and figures["seconds"] >= 0.5 for figures in found.values())
    assert [side for side, figures in found.items() if "cpu_s" in figures] == ["datapoints", "batches"]
    assert [side for side, figures in found.items() if "wait_ms" in figures] == ["batches", "epochs_holding", "thread"]
    assert len(run.table) == 2 + len(sides)
