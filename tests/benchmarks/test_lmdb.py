"""`python -m benchmarks lmdb`, in one round over tiny files. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(("case", "nbytes"), [("jpegs", None), ("small", 512 * 4)])
def test_files_are_saved_and_loaded_by_every_side(
    bench: Callable[..., Any], photos: Path, tmp_path: Path, case: str, nbytes: int | None
) -> None:
    options = ["--rounds", "1", "--seconds", "0.1", "--megabytes", "1", "--case", case, "--photos", str(photos)]
    run = bench("lmdb", tmp_path, "lmdb", *options)
    assert set(run.results) == {f"{case} save", f"{case} sequential", f"{case} shuffled"}
    for doing, rounds in run.results.items():
        assert set(rounds) | run.skipped == {"plain", "ours", "rival_tensorpack"}
        counts = set()
        for (figures,) in rounds.values():
            assert figures["seconds"] > 0
            assert figures["bytes"] == pytest.approx(figures["items"] * figures["datapoint_bytes"])
            assert nbytes in (None, figures["datapoint_bytes"])
            counts.add(figures["items" if doing.endswith("save") else "first_items"])
        (count,) = counts
        assert count * figures["datapoint_bytes"] == pytest.approx(1e6, rel=0.1)
    assert len(run.table) == 2 + sum(map(len, run.results.values()))
    assert len({line.count("|") for line in run.table}) == 1
