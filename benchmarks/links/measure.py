"""Owns the measuring of one side: a producer at the far end of a limited link, broker and consumer at this one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.links.cases import CASES
from benchmarks.links.network import link, why_not
from benchmarks.links.peer import NONE
from benchmarks.links.table import markdown
from benchmarks.photographs import photographs
from benchmarks.processes import figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results

PEER = "benchmarks.links.peer"
SIDES = (NONE, "lz4", "zstd")


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(photographs(chosen.photos))
        listing = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "files.txt"
        listing.write_text("\n".join(map(str, files)))

        def measure(case: str, side: str) -> Figures:
            return over_a_link(side, case, chosen.seconds, listing)

        return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


def over_a_link(side: str, case: str, seconds: float, listing: Path) -> Figures:
    """Run one producer process and one consumer process, with the link of the case between them.

    Raises:
        PeerFailed: one of them failed, or nothing came out of them in time.
    """
    with link(CASES[case].megabits) as wire, logs() as log:
        address = f"tcp://{wire.address}:{free_port()}"
        far = wire.there(sys.executable)
        with (
            started(PEER, "send", side, case, address, listing, log=log, python=far) as producer,
            started(
                PEER, "receive", side, case, address, seconds, wire.received, producer.pid,
                log=log, stdout=subprocess.PIPE,
            ) as consumer,
        ):  # fmt: skip
            return figures_of(consumer, seconds)


GROUP = Group(
    cases=tuple(CASES),
    sides=SIDES,
    needs={"lz4": ("lz4.block",), "zstd": ("zstandard",)},
    run=run,
    markdown=markdown,
    unit="datapoints/s",
    impossible=why_not,
)
