"""Owns the measuring of one side: a producer daemon with one worker, and a consumer that hosts its broker."""

from __future__ import annotations

import subprocess

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.guarantee.cases import CASES, OPTIONS
from benchmarks.guarantee.table import markdown
from benchmarks.processes import figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    def measure(case: str, side: str) -> Figures:
        address = f"tcp://127.0.0.1:{free_port()}"
        produce = ("produce", CASES[case].factory, "--to", address, "--workers", "1")
        with (
            logs() as log,
            started(
                "benchmarks.guarantee.peer", side, case, address, chosen.seconds, log=log, stdout=subprocess.PIPE
            ) as consumer,
            started("dfserve.cli", *produce, log=log),
        ):
            return figures_of(consumer, chosen.seconds)

    return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


GROUP = Group(cases=tuple(CASES), sides=tuple(OPTIONS), needs={}, run=run, markdown=markdown)
