"""`python -m benchmarks links`, in one tiny round; and what is sent in it. Nothing here is about speed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.links import peer
from benchmarks.links.cases import CASES, Source
from benchmarks.links.network import BURST, NETWORKS, addresses, link, why_not


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
    assert [row.split("|")[2].strip() for row in run.table if row.startswith("| tokens")] == ["none", "zstd"]


@pytest.mark.parametrize(("side", "compression"), [("none", None), ("lz4", "lz4"), ("zstd", "zstd")])
def test_a_side_is_what_its_producer_compresses_with(
    side: str, compression: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(peer, "send_dataflow_zmq", lambda *_, **options: asked.append(options))
    (tmp_path / "files.txt").touch()
    peer.send(side, "noise_1gbit", "tcp://127.0.0.1:1", str(tmp_path / "files.txt"))
    assert asked == [{"compression": compression, "shared_memory": False}]


FAR = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    print(time.monotonic(), flush=True)
    connection.sendall(bytes(int(sys.argv[3])))
"""


def test_what_comes_over_a_link_takes_the_time_that_its_rate_allows() -> None:
    if why := why_not():
        pytest.skip(why)
    megabits, nbytes, got = 100, 2_500_000, 0
    with link(megabits) as wire, socket.create_server((wire.address, 0)) as server:
        server.settimeout(60)
        words = (sys.executable, "-c", FAR, wire.address, str(server.getsockname()[1]), str(nbytes))
        with subprocess.Popen(wire.there(*words), stdout=subprocess.PIPE, text=True) as far:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                while data := connection.recv(1 << 16):
                    got += len(data)
            ended = time.monotonic()
            assert far.stdout is not None
            began = float(far.stdout.read())
    assert got == nbytes
    assert ended - began > nbytes * 8 / (megabits * 1e6) - 2 * BURST  # however busy the machine, it is never less


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
