"""Owns what a group of benchmarks is to the command line: its name, its cases and sides, how it runs and is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rounds import Results

Say = Callable[[str], None]


@dataclass(frozen=True)
class Chosen:
    """What a run is to measure.

    Attributes:
        cases: of the group.
        sides: of the group, whose packages are installed.
        rounds: turns of each side.
        seconds: measured in each turn.
        megabytes: of the arrays in one LMDB file.
        photos: a folder of JPEG files; None: scikit-image's photographs.
        say: is told of each figure.
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...]
    rounds: int
    seconds: float
    megabytes: float
    photos: Path | None
    say: Say


@dataclass(frozen=True)
class Group:
    """Benchmarks that share their cases, their sides and a table.

    Attributes:
        cases: by name.
        sides: by name.
        needs: by side, the modules without which it is skipped.
        run: measures.
        markdown: returns the table of what was measured.
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    run: Callable[[Chosen], Results]
    markdown: Callable[[Results], str]
