"""Owns the tests of many ranks in processes of their own: killed at a step, resumed from an earlier one."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# 53 in every run; DFSERVE_TEST_STEPS=5300 for the size of a day's training.
KILLED_AT = int(os.environ.get("DFSERVE_TEST_STEPS", "53"))
SAVED_AT = KILLED_AT * 50 // 53
WORLD, BATCH, BAD = 8, 4, 97
N = KILLED_AT * WORLD * BATCH * 3 // 4  # items: the kill comes in the second epoch
OPTIONS: dict[str, Any] = {"order": "strict", "seed": 3, "split_size": 16, "batch_size": BATCH, "on_error": "skip"}


@pytest.mark.timeout(120 + KILLED_AT // 4)
def test_eight_ranks_killed_at_a_step_and_resumed_from_an_earlier_one_see_what_an_unbroken_run_sees(
    rig: Any, tcp_address: str, tmp_path: Path
) -> None:
    rig.broker(tcp_address)
    rig.produce(tcp_address, workers=2, n=N, bad=BAD)
    options = {**OPTIONS, "world": WORLD, "even": "drop"}

    def ranks(which: str, *flags: str) -> list[Any]:
        files = [str(tmp_path / f"state-{rank}") for rank in range(WORLD)]
        return [rig.trainer(tcp_address, which, file, *flags, rank=rank, **options) for rank, file in enumerate(files)]

    killed = ranks("--save", "--save-after", str(SAVED_AT), "--hold-after", str(KILLED_AT), "--epochs", "3")
    for rank in killed:
        rank.wait_until_said("holding")
    for rank in killed:
        rank.kill()
    resumed = ranks("--load", "--epochs", "2")
    assert [rank.wait(600) for rank in resumed] == [0] * WORLD, [rank.output[-1000:] for rank in resumed]

    unbroken = _rows(rig, tcp_address)
    for number, (before, after) in enumerate(zip(killed, resumed, strict=True)):
        rows = [*rig.rows_of(before)[: SAVED_AT * BATCH], *rig.rows_of(after)]
        assert rows == unbroken[number], f"rank {number}"
        assert rig.rows_of(before) == unbroken[number][: KILLED_AT * BATCH], f"rank {number}, before"
    counts = [[end["count"] for end in rig.ends_of(rank)] for rank in resumed]
    assert counts == [counts[0]] * WORLD, "as many batches in each rank"
    total = rig.whole(N, bad=BAD).total()
    assert counts[0][1] == total // (WORLD * BATCH)
    quarantined = sum(end["errors"] for end in rig.ends_of(resumed[0])[1:])
    assert quarantined > 0


def _rows(rig: Any, address: str) -> list[list[Any]]:
    """Three epochs of one rank, dealt out as eight ranks take them."""
    source = rig.consumer(address, **{**OPTIONS, "batch_size": None}, group="unbroken")
    dealt: list[list[Any]] = [[] for _ in range(WORLD)]
    for _ in range(3):
        rows = [(number, which, float(np.float32(drawn))) for number, which, drawn in rig.read(source)]  # as in batches
        assert rig.multiset(rows) == rig.whole(N, bad=BAD)
        for row in range(len(rows) // (WORLD * BATCH)):
            for rank in range(WORLD):
                first = (row * WORLD + rank) * BATCH
                dealt[rank] += islice(rows, first, first + BATCH)
    return dealt
