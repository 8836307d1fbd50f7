"""The options of `python -m benchmarks`, without measuring anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def benchmarks(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *options]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("options", [("lmdb", "--case", "tokens"), ("images", "--side", "t4")])
def test_cases_and_sides_of_another_group_are_refused(options: tuple[str, ...]) -> None:
    done = benchmarks(*options)
    assert done.returncode == 2
    assert "no group that is to run has these cases and sides" in done.stderr


def test_help_names_the_groups() -> None:
    done = benchmarks("--help")
    assert done.returncode == 0
    shown = "".join(done.stdout.split()).replace("{", "").replace("}", "")  # of several clicks and terminals
    assert "[transport|scaling|latency|soak|images|lmdb|network|guarantee|links|trainer]..." in shown


def test_a_rival_that_is_not_there_is_skipped_by_name_where_nothing_may_be_installed(tmp_path: Path) -> None:
    done = benchmarks("transport", "--side", "rival_ray", "--no-install", "--rivals", str(tmp_path))
    assert done.returncode == 2
    assert "skipped: rival_ray, because ray is not in" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_rival_that_cannot_be_installed_is_skipped_with_pips_words_and_leaves_nothing(tmp_path: Path) -> None:
    # pip is not to find anything, so that nothing is downloaded.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = benchmarks("transport", "--side", "rival_ray", "--rivals", str(tmp_path), **offline)
    assert done.returncode == 2
    assert "skipped: rival_ray, because ray cannot be installed: " in done.stderr
    assert "No matching distribution found for " in done.stderr  # ray, or what is wanted beside it
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_cannot_be_made_is_skipped_by_name_with_the_reason(tmp_path: Path) -> None:
    done = benchmarks("links", "--side", "none", "--out", str(tmp_path), PATH=str(tmp_path))  # where there is no `ip`
    assert done.returncode == 2
    assert "skipped: none, because a network of its own cannot be made: " in done.stderr
    assert "apt install iproute2" in done.stderr
    assert list(tmp_path.iterdir()) == []
