"""`python -m benchmarks network`, in two cells of its grid. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_cells_of_the_grid_are_measured_against_a_server(
    bench: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    sides = ["--side", "t2", "--side", "t8", "--side", "decode"]
    run = bench(
        "network", tmp_path, "network", "--rounds", "1", "--seconds", "0.5", "--case", "p2", *sides,
        "--photos", str(photos),
    )  # fmt: skip
    assert set(run.results) == {"p2"}
    assert set(run.results["p2"]) == {"t2", "t8", "decode"}
    for (figures,) in run.results["p2"].values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.5
    head, _, *rows = run.table
    assert head == "| threads each | 2 processes |"
    assert [row.split("|")[1].strip() for row in rows] == ["2", "8", "decoding alone"]
    assert all(row.count("%") == 1 for row in rows[:2])
