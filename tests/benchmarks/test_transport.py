"""`python -m benchmarks --case tokens`, in one tiny round. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_one_round_of_one_case_gives_figures_and_a_table(bench: Callable[..., Any], tmp_path: Path) -> None:
    run = bench("transport", tmp_path, "--rounds", "1", "--seconds", "0.2", "--case", "tokens")
    rounds = run.results["tokens"]
    assert set(rounds) | run.skipped == {"ours", "curve", "rival_raw", "rival_tensorpack"}
    assert {"ours", "curve", "rival_raw"} <= set(rounds)
    for (figures,) in rounds.values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.2
        assert figures["bytes"] == figures["items"] * 512 * 4
    assert int(run.environment["cores"]) >= 1
    assert len([line for line in run.table if line.startswith("| [int32 512, int] |")]) == len(rounds)
