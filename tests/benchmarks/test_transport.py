"""`python -m benchmarks transport`, in one tiny round. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS = {"ours", "tcp", "curve", "standalone", "standalone_tcp"}
LIMITS = {"limit_raw", "limit_ipc", "limit_ipc_plain", "limit_proxy", "limit_socket", "limit_memory"}
FOREIGN = {  # they have environments of their own
    "rival_tensorflow", "rival_tensorflow_batches", "rival_ray", "rival_torch", "rival_torch_batches",
}  # fmt: skip


def test_every_side_that_is_installed_gives_figures_and_a_row(bench: Callable[..., Any], tmp_path: Path) -> None:
    run = bench("transport", tmp_path, "transport", "--rounds", "1", "--seconds", "0.2", "--case", "tokens")
    rounds = run.results["tokens"]
    assert set(rounds) | run.skipped == OURS | LIMITS | FOREIGN | {"rival_tensorpack"}
    assert set(rounds) >= OURS | LIMITS
    assert run.skipped >= FOREIGN
    assert all("--no-install" in reason for reason in run.reasons if "tensorpack" not in reason)
    for (figures,) in rounds.values():
        assert figures["items"] > 0
        assert figures["seconds"] >= 0.2
        assert figures["bytes"] == figures["items"] * 512 * 4
        assert figures["cpu_s"] + figures["broker_cpu_s"] > 0
    assert int(run.environment["cores"]) >= 1
    assert len([line for line in run.table if line.startswith("| [int32 512, int] |")]) == len(rounds)


def test_aims_stand_beside_the_ratios_of_the_sides_that_were_measured(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    sides = ["--side", "ours", "--side", "limit_raw", "--side", "limit_ipc"]
    run = bench("transport", tmp_path, "transport", "--rounds", "1", "--seconds", "0.2", "--case", "image", *sides)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in run.table]
    aims = [row for row in rows if row[0].startswith("[uint8 224x224x3, int], ")]
    assert [row[2] for row in aims] == ["bare pyzmq, tcp", "bare pyzmq, ipc"]
    assert [row[5] for row in aims] == ["≥ 0.8", "≤ 0.25"]
    (ours,), (raw,) = (run.results["image"][side] for side in ("ours", "limit_raw"))
    ratio = (ours["items"] / ours["seconds"]) / (raw["items"] / raw["seconds"])
    assert aims[0][3] == f"{ratio:.2f}"
    assert aims[0][6] == ("yes" if ratio >= 0.8 else "no")
