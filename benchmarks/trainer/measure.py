"""Owns the measuring of one side: a producer daemon with one worker, and a trainer that hosts its broker."""

from __future__ import annotations

import subprocess

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.guarantee.cases import CASES
from benchmarks.processes import figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results
from benchmarks.trainer.steps import SIDES
from benchmarks.trainer.table import markdown


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    def measure(case: str, side: str) -> Figures:
        address = f"tcp://127.0.0.1:{free_port()}"
        produce = ("produce", CASES[case].factory, "--to", address, "--workers", "1")
        peer = ("benchmarks.trainer.peer", side, case, address, chosen.seconds)
        with (
            logs() as log,
            started(*peer, log=log, stdout=subprocess.PIPE) as trainer,
            started("dfserve.cli", *produce, log=log),
        ):
            return figures_of(trainer, chosen.seconds)

    return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


GROUP = Group(cases=tuple(CASES), sides=tuple(SIDES), needs={}, run=run, markdown=markdown)
