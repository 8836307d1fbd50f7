"""Owns what runs in a process: a save or a load by one side, `python -m benchmarks.lmdb.peer JOB`, JOB being JSON."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.counting import print_and_end
from benchmarks.lmdb.cases import CASES
from benchmarks.rounds import Figures


@dataclass(frozen=True)
class Job:
    """What the process does.

    Attributes:
        action: save, sequential or shuffled.
        side: module of this package.
        case: of ``CASES``.
        path: of the LMDB file.
        listing: a JSON file with the paths of JPEG files.
        nbytes: of all arrays, about.
        seconds: that loading is measured.
    """

    action: str
    side: str
    case: str
    path: str
    listing: str
    nbytes: float
    seconds: float

    def text(self) -> str:
        """Return it as the argument of the process."""
        return json.dumps(asdict(self))


def save(side: Any, datapoints: list[Any], path: str) -> Figures:
    """Measure a save, from the call until the file is on the disk."""
    started = time.perf_counter()
    side.save(datapoints, path)
    return {"items": len(datapoints), "seconds": time.perf_counter() - started}


def load(side: Any, path: str, shuffle: bool, seconds: float) -> Figures:
    """Measure the first pass, opening included, and then as many further ones as fill the time."""
    begun = time.perf_counter()
    data = side.load(path, shuffle)
    first = count(data)
    items, cpu, started = 0, time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        items += count(data)
    cpu = time.process_time() - cpu
    return {"items": items, "seconds": elapsed, "cpu_s": cpu, "first_items": first, "first_s": started - begun}


def count(datapoints: Iterable[Any]) -> int:
    """Go through a pass."""
    number = 0
    for datapoint in datapoints:
        number += 1
        del datapoint
    return number


def main(text: str) -> None:
    """Do the job, print the figures as JSON and exit."""
    job = Job(**json.loads(text))
    side = importlib.import_module(f"benchmarks.lmdb.{job.side}")
    datapoints = CASES[job.case].make(list(map(Path, json.loads(Path(job.listing).read_text()))), job.nbytes)
    each = sum(array.nbytes for array, _ in datapoints) / len(datapoints)
    if job.action == "save":
        figures = save(side, datapoints, job.path)
    else:
        figures = load(side, job.path, job.action == "shuffled", job.seconds)
        assert figures["first_items"] == len(datapoints)
    print_and_end({**figures, "bytes": figures["items"] * each, "datapoint_bytes": each})


if __name__ == "__main__":
    main(sys.argv[1])
