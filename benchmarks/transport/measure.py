"""Owns the measuring of one side: a producer's process, a consumer's process, and what is between them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.processes import figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results
from benchmarks.transport import curve
from benchmarks.transport.cases import CASES
from benchmarks.transport.sides import LEFT_OUT, SIDES
from benchmarks.transport.table import markdown

PEER = "benchmarks.transport.peer"


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    def measure(case: str, side: str) -> Figures:
        return transported(side, case, chosen.seconds, chosen.pythons)

    results: Results = {}
    with curve.keys():
        for case in chosen.cases:
            sides = [side for side in chosen.sides if (case, side) not in LEFT_OUT]
            results |= rounds.run([case], sides, chosen.rounds, measure, chosen.say)
    return results


def transported(side: str, case: str, seconds: float, pythons: Mapping[str, Path]) -> Figures:
    """Run one producer process and one consumer process on this machine; return the consumer's figures.

    Raises:
        PeerFailed: one of them failed, or nothing came out of them in time.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        pids = between(side, case, address, log, stack)
        python = python_of(side, pythons)
        receive = (PEER, "receive", side, case, address, seconds, *pids)
        consumer = stack.enter_context(started(*receive, log=log, python=python, stdout=subprocess.PIPE))
        if not SIDES[side].alone:
            stack.enter_context(started(PEER, "send", side, case, address, log=log, python=python))
        figures = figures_of(consumer, seconds)
    figures["bytes"] = figures["items"] * CASES[case].nbytes
    return figures


def between(side: str, case: str, address: str, log: IO[str], stack: contextlib.ExitStack) -> list[int]:
    """Start the process between producer and consumer, if the side has one; return its pid."""
    make = SIDES[side].between
    if make is None:
        return []
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    third: Any = stack.enter_context(started(*make(address, case, folder), log=log))
    return [third.pid]


def python_of(side: str, pythons: Mapping[str, Path]) -> str | Path:
    """Return the interpreter of a side's processes."""
    rival = SIDES[side].rival
    return sys.executable if rival is None else pythons[rival]


GROUP = Group(
    cases=tuple(CASES),
    sides=tuple(SIDES),
    needs={"rival_tensorpack": ("tensorpack.dataflow",)},
    run=run,
    markdown=markdown,
    rivals={name: side.rival for name, side in SIDES.items() if side.rival is not None},
    unit="datapoints/s",
)
