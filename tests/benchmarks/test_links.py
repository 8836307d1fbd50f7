"""`python -m benchmarks links`, in one tiny round; and what is sent in it. Nothing here is about speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.links.cases import CASES, Source
from benchmarks.links.network import NETWORKS, addresses, why_not


def test_a_limited_link_is_measured_with_and_without_compression(
    bench: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    if why := why_not():
        pytest.skip(why)
    sides = ["--side", "none", "--side", "zstd"]
    run = bench(
        "links", tmp_path, "links", "--rounds", "1", "--seconds", "0.5", "--case", "tokens_100mbit", *sides,
        "--photos", str(photos),
    )  # fmt: skip
    for (figures,) in run.results["tokens_100mbit"].values():
        assert figures["seconds"] >= 0.5
        assert figures["bytes"] == figures["items"] * 512 * 4 > 0
        assert figures["wire_bytes"] > 0
    ((none,), (zstd,)) = (run.results["tokens_100mbit"][side] for side in ("none", "zstd"))
    assert none["wire_bytes"] * 8 < 200e6 * none["seconds"], "the link is limited"
    assert zstd["bytes"] / zstd["wire_bytes"] > none["bytes"] / none["wire_bytes"]
    assert [row.split("|")[2].strip() for row in run.table if row.startswith("| tokens")] == ["none", "zstd"]


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("_1gbit")])
def test_the_datapoints_of_a_case_differ_and_have_the_bytes_that_are_counted(case: str, photos: Path) -> None:
    chosen = CASES[case]
    datapoints = list(Source(chosen.make([str(file) for file in sorted(photos.iterdir())])))
    assert all(datapoint[0].nbytes == chosen.nbytes for datapoint in datapoints)
    first, second = datapoints[0][0], datapoints[1][0]
    assert not np.array_equal(first, second)


def test_runs_have_addresses_of_their_own() -> None:
    found = {address for number in range(NETWORKS) for address in addresses(number)}
    assert len(found) == 2 * NETWORKS
    assert addresses(0) == addresses(NETWORKS) == ("198.18.0.1", "198.18.0.2")
    assert addresses(NETWORKS - 1) == ("198.18.255.253", "198.18.255.254")
