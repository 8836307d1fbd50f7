"""Owns a run of the group: files that each side saves and then loads, each time in a fresh process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.lmdb.cases import CASES
from benchmarks.lmdb.peer import Job
from benchmarks.lmdb.table import ACTIONS, NAMES, markdown
from benchmarks.photographs import photographs
from benchmarks.processes import answer
from benchmarks.rounds import Figures, Results

PATIENCE = 120.0  # seconds that a save, or a first pass, may take on a slow disk


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""
    with photographs(chosen.photos) as photos, tempfile.TemporaryDirectory(prefix="dfserve-lmdb-") as folder:
        listing = Path(folder, "photos.json")
        listing.write_text(json.dumps(list(map(str, photos))))

        def measure(doing: str, side: str) -> Figures:
            case, action = doing.split()
            if action == "save":
                return do(case, action, side, Path(folder, f"{case}-{side}.lmdb"))
            # What plain LMDB reads is dfserve's file.
            path = Path(folder, f"{case}-{'ours' if side == 'plain' else side}.lmdb")
            if not path.exists():
                do(case, "save", "ours", path)
            return do(case, action, side, path)

        def do(case: str, action: str, side: str, path: Path) -> Figures:
            if action == "save":
                for old in (path, Path(f"{path}-lock")):
                    old.unlink(missing_ok=True)
            job = Job(action, side, case, str(path), str(listing), chosen.megabytes * 1e6, chosen.seconds)
            return answer("benchmarks.lmdb.peer", job.text(), seconds=chosen.seconds + PATIENCE)

        doings = [f"{case} {action}" for case in chosen.cases for action in ACTIONS]
        return rounds.run(doings, chosen.sides, chosen.rounds, measure, chosen.say)


GROUP = Group(
    cases=tuple(CASES),
    sides=tuple(NAMES),
    needs={"rival_tensorpack": ("tensorpack.dataflow",)},
    run=run,
    markdown=markdown,
)
