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
