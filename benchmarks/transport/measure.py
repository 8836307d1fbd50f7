"""Owns the measuring of one side: a producer's process, a consumer's process, and a free port between them."""

from __future__ import annotations

import subprocess

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.processes import figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results
from benchmarks.transport import curve
from benchmarks.transport.cases import CASES
from benchmarks.transport.table import markdown

PEER = "benchmarks.transport.peer"


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    def measure(case: str, side: str) -> Figures:
        return transported(side, case, chosen.seconds)

    with curve.keys():
        return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


def transported(side: str, case: str, seconds: float) -> Figures:
    """Run one producer process and one consumer process over tcp on this machine; return the consumer's figures.

    Raises:
        PeerFailed: one of them failed, or nothing came out of them in time.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        logs() as log,
        started(PEER, "receive", side, case, address, seconds, log=log, stdout=subprocess.PIPE) as consumer,
        started(PEER, "send", side, case, address, log=log),
    ):
        figures = figures_of(consumer, seconds)
    figures["bytes"] = figures["items"] * CASES[case].nbytes
    return figures


GROUP = Group(
    cases=tuple(CASES),
    sides=("ours", "curve", "rival_tensorpack", "rival_raw"),
    needs={"rival_tensorpack": ("tensorpack.dataflow",)},
    run=run,
    markdown=markdown,
)
