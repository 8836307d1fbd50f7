"""`python -m benchmarks`, as `make bench` runs it, in one tiny round. Nothing here is about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_one_round_of_one_case_gives_figures_and_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--seconds", "0.2", "--case", "tokens"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "transport.json").read_text())
    rounds = written["results"]["tokens"]
    rival = "rival_tensorpack" in rounds
    assert rival or "skipped: rival_tensorpack" in done.stderr
    assert {"ours", "rival_raw"} <= set(rounds)
    for (figures,) in rounds.values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.2
        assert figures["bytes"] == figures["items"] * 512 * 4
    assert int(written["environment"]["cores"]) >= 1
    table = [line for line in done.stdout.splitlines() if line.startswith("| [int32 512, int] |")]
    assert len(table) == len(rounds)
