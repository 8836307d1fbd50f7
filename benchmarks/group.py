"""Owns what a group of benchmarks is to the command line: its name, its cases and sides, how it runs and is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds import Figures, Results, rate

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
        minutes: of a soak.
        pythons: interpreters that have a rival, by its name.
        skipped: by side, why it is not measured.
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...]
    rounds: int
    seconds: float
    megabytes: float
    photos: Path | None
    say: Say
    minutes: float = 0.5
    pythons: Mapping[str, Path] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Benchmarks that share their cases, their sides and a table.

    Attributes:
        cases: by name.
        sides: by name.
        needs: by side, the modules without which it is skipped.
        run: measures.
        markdown: returns the table of what was measured.
        rivals: by side, the environment (in ``benchmarks.rivals``) without which it is skipped.
        figure: of a round, what the plot shows.
        unit: of the plot's figure.
        draw: draws one case in a panel of the plot; None: bars of the figure.
        impossible: returns why this machine cannot run the group, whose sides are then skipped; empty: it can.
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    run: Callable[[Chosen], Results]
    markdown: Callable[[Results], str]
    rivals: Mapping[str, str] = field(default_factory=dict)
    figure: Callable[[Figures], float] = rate
    unit: str = "items/s"
    draw: Callable[[Any, dict[str, list[Figures]]], None] | None = None
    impossible: Callable[[], str] = str
