"""Owns a run of the group: the servers, and a fresh process for each cell of the grid."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.network.table import LATENCY, PROCESSES, THREADS, markdown
from benchmarks.photographs import photographs
from benchmarks.processes import PeerFailed, answer, logs, started
from benchmarks.rounds import Figures, Results

SERVERS = 2  # processes
LISTED = 1 << 15  # URLs in a pass, each file many times: a pass's end, where threads wait, is not what is measured


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(photographs(chosen.photos))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listing = written(folder / "files.json", list(map(str, files)))
        ports = [stack.enter_context(server(listing)) for _ in range(SERVERS)]
        numbers = range(-(-LISTED // (len(files) * SERVERS)) * len(files))
        urls = [f"http://127.0.0.1:{port}/{number % len(files)}" for number in numbers for port in ports]
        listed = written(folder / "urls.json", urls)

        def measure(case: str, side: str) -> Figures:
            args = (listed, listing, THREADS[side], PROCESSES[case], chosen.seconds)
            return answer("benchmarks.network.peer", *args, seconds=chosen.seconds)

        return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


@contextmanager
def server(listing: Path) -> Iterator[int]:
    """Run a server and hand out its port."""
    with logs() as log, started("benchmarks.network.server", listing, LATENCY, log=log, stdout=subprocess.PIPE) as it:
        port = it.stdout.readline()
        if not port:
            raise PeerFailed("the server did not start")
        yield int(port)


def written(file: Path, values: Sequence[Any]) -> Path:
    """Write values as JSON; return the file."""
    file.write_text(json.dumps(values))
    return file


GROUP = Group(cases=tuple(PROCESSES), sides=tuple(THREADS), needs={}, run=run, markdown=markdown)
