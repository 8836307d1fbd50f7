"""Owns the figures that are shown: the memory of each process at the beginning, half-way and at the end; and lines."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.rounds import Results, rate
from benchmarks.transport.table import NAMES, TITLES

HEAD = (
    "| case | side | datapoints/s | process | MB resident after a tenth of the time | half-way | at the end | most |\n"
    "|---|---|---:|---|---:|---:|---:|---:|"
)
PROCESSES = ("producer", "broker", "consumer")
PART = 0.05  # of all samples on each side, whose median is shown


def around(values: list[float], share: float) -> float:
    """Return the median of the values around one place."""
    middle, width = share * (len(values) - 1), max(1.0, PART * len(values))
    return median(value for place, value in enumerate(values) if abs(place - middle) <= width)


def row(case: str, side: str, process: str, figures: Any) -> str:
    """Return one line of the table."""
    values = [sample[process] / 1e6 for sample in figures["samples"]]
    cells = [around(values, 0.1), around(values, 0.5), around(values, 1.0), max(values)]
    shown = " | ".join(f"{cell:,.0f}" for cell in cells)
    return f"| {TITLES[case]} | {NAMES[side]} | {rate(figures):,.0f} | {process} | {shown} |"


def markdown(results: Results) -> str:
    """Return the whole table."""
    rows = [
        row(case, side, process, figures)
        for case, rounds in results.items()
        for side, (figures,) in rounds.items()
        for process in PROCESSES
    ]
    return "\n".join([HEAD, *rows])


def draw(panel: Any, rounds: Any) -> None:
    """Draw memory over time: a line for each process of each side."""
    for side, (figures,) in rounds.items():
        seconds = [sample["seconds"] for sample in figures["samples"]]
        for process in PROCESSES:
            megabytes = [sample[process] / 1e6 for sample in figures["samples"]]
            panel.plot(seconds, megabytes, label=f"{side}: {process}")
    panel.set_ylim(bottom=0)
    panel.set_ylabel("MB resident", fontsize=8)
    panel.legend(fontsize=7)
