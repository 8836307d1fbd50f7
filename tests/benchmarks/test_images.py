"""`python -m benchmarks images`, in one tiny round of four photographs. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

ALWAYS = {"bare", "ours", "ours_runner", "ours_map", "ours_threads", "ours_produced"}
RIVALS = {"bare_tensorpack", "rival_tensorpack", "rival_torch", "rival_torch_batches"}


def test_every_side_that_is_installed_gives_figures_and_a_row(
    bench: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    run = bench("images", tmp_path, "images", "--rounds", "1", "--seconds", "0.2", "--photos", str(photos))
    rounds = run.results["imagenet"]
    assert set(rounds) >= ALWAYS
    assert set(rounds) | run.skipped == ALWAYS | RIVALS
    for (figures,) in rounds.values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.2
        assert figures["cpu_s"] + figures["workers_cpu_s"] > 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in run.table]
    assert len(rows) == 2 + len(rounds)
    assert {len(row) for row in rows} == {10}
    titles = {row[0]: row for row in rows[2:]}
    assert titles["plain loops"][5] == ""
    (ours,), (bare,) = rounds["ours"], rounds["bare"]
    ratio = (ours["items"] / ours["seconds"]) / (bare["items"] / bare["seconds"])
    assert titles["dfserve MultiProcessRunnerZMQ"][5] == f"{ratio:.2f}"
