"""Owns a run of the group: the folder of JPEG files, and a fresh process for each figure."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.images.sides import SIDES
from benchmarks.images.table import markdown
from benchmarks.photographs import photographs
from benchmarks.processes import answer
from benchmarks.rounds import Figures, Results


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""
    with photographs(chosen.photos) as files, tempfile.TemporaryDirectory() as folder:
        chosen.say(f"{len(files)} JPEG files of {sum(f.stat().st_size for f in files) / len(files) / 1e3:.0f} kB")
        listing = Path(folder, "files.json")
        listing.write_text(json.dumps(list(map(str, files))))

        def measure(_: str, side: str) -> Figures:
            return answer("benchmarks.images.peer", side, listing, chosen.seconds, seconds=chosen.seconds)

        return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


GROUP = Group(
    cases=("imagenet",),
    sides=tuple(SIDES),
    needs={name: side.needs for name, side in SIDES.items()},
    run=run,
    markdown=markdown,
)
