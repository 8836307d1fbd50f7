"""`python -m benchmarks guarantee`, with one kind of datapoint. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_epochs_are_measured_beside_the_stream(bench: Callable[..., Any], tmp_path: Path) -> None:
    run = bench("guarantee", tmp_path, "guarantee", "--rounds", "1", "--seconds", "0.5", "--case", "sequences")
    assert set(run.results) == {"sequences"}
    assert set(run.results["sequences"]) == {"stream", "strict", "arrival"}
    for (figures,) in run.results["sequences"].values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.5
    assert [row.split("|")[2].strip() for row in run.table[2:]] == [
        "stream",
        "epochs, strict order",
        "epochs, order of arrival",
    ]
