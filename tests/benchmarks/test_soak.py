"""`python -m benchmarks soak`, for a second. Nothing here is about memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_memory_of_every_process_is_followed(bench: Callable[..., Any], tmp_path: Path) -> None:
    run = bench("soak", tmp_path, "soak", "--minutes", "0.02", "--case", "tokens")
    assert set(run.results["tokens"]) == {"ours", "tcp", "standalone"}
    for (figures,) in run.results["tokens"].values():
        assert len(figures["samples"]) >= 3
        for sample in figures["samples"]:
            assert min(sample["producer"], sample["broker"], sample["consumer"]) > 0
        times = [sample["seconds"] for sample in figures["samples"]]
        assert times == sorted(times)
    assert [line.split("|")[4].strip() for line in run.table[2:]] == ["producer", "broker", "consumer"] * 3
