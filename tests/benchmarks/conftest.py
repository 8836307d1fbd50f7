"""Owns what the tests of the benchmarks share: a run of `python -m benchmarks`, and a few photographs."""

from __future__ import annotations

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


def run_benchmarks(group: str, out: Path, *options: str) -> Run:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in out.iterdir()] == [f"{group}.json"]
    written: dict[str, Any] = json.loads((out / f"{group}.json").read_text())
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    skipped = {line.split()[1].strip(",") for line in done.stderr.splitlines() if line.startswith("skipped: ")}
    return Run(written["results"], written["environment"], table, skipped)


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
