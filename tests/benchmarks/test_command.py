"""The options of `python -m benchmarks`, without measuring anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def benchmarks(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("options", [("lmdb", "--case", "tokens"), ("images", "--side", "t4")])
def test_cases_and_sides_of_another_group_are_refused(options: tuple[str, ...]) -> None:
    done = benchmarks(*options)
    assert done.returncode == 2
    assert "no group that is to run has these cases and sides" in done.stderr


def test_help_names_the_groups() -> None:
    done = benchmarks("--help")
    assert done.returncode == 0
    assert "[transport|images|lmdb|network|guarantee]..." in done.stdout.replace("{", "").replace(
        "}", ""
    )  # of several clicks
