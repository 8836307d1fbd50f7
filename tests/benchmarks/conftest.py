"""Owns what the tests of the benchmarks share: a run of `python -m benchmarks`, and a few photographs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Run:
    """What a run wrote and printed."""

    results: dict[str, dict[str, list[dict[str, float]]]]
    environment: dict[str, str]
    table: list[str]  # lines
    skipped: set[str]  # sides
    reasons: list[str]  # why


def run_benchmarks(group: str, out: Path, *options: str) -> Run:
    """Run without the rivals that have environments of their own: those are large."""
    nowhere = ("--rivals", str(out.with_name(f"{out.name}-rivals")))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--out", str(out), "--no-install", *nowhere],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=220,  # seconds: less than a test has
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plots = set() if "no plot, because matplotlib cannot be imported" in done.stderr else {f"{group}.png"}
    assert plots or importlib.util.find_spec("matplotlib") is None
    assert {file.name for file in out.iterdir()} == {f"{group}.json", f"{group}.md"} | plots
    written: dict[str, Any] = json.loads((out / f"{group}.json").read_text())
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert all(line in (out / f"{group}.md").read_text() for line in table)
    reasons = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    skipped = {line.split()[1].strip(",") for line in reasons}
    return Run(written["results"], written["environment"], table, skipped, reasons)


@pytest.fixture(scope="session")
def bench() -> Callable[..., Run]:
    return run_benchmarks


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four JPEG files."""
    cv2 = pytest.importorskip("cv2")
    data = pytest.importorskip("skimage.data")
    folder: Path = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        assert cv2.imwrite(str(folder / f"{name}.jpg"), cv2.resize(getattr(data, name)(), (300, 260))[:, :, ::-1])
    return folder
