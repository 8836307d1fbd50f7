"""Owns the figures that are shown: medians with their spread as a markdown table, and then the aims."""

from __future__ import annotations

from statistics import median

from benchmarks import aims
from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells, ratios
from benchmarks.transport.aims import AIMS
from benchmarks.transport.cases import CASES
from benchmarks.transport.sides import SIDES

NAMES = {name: side.title for name, side in SIDES.items()}
TITLES = {name: case.title for name, case in CASES.items()}
HEAD = (
    "| case | side | datapoints/s | min to max | MB/s | consumer CPU s/GB | with broker | dfserve x it | min to max |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def row(case: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures = rounds[side]
    megabytes = median(one["bytes"] / one["seconds"] / 1e6 for one in figures)
    own = median(one["cpu_s"] / one["bytes"] * 1e9 for one in figures)
    both = median((one["cpu_s"] + one["broker_cpu_s"]) / one["bytes"] * 1e9 for one in figures)
    ours = rounds.get("ours")
    ratio = cells(ratios(ours, figures), ".2f") if ours and side != "ours" else " | "
    return (
        f"| {CASES[case].title} | {NAMES[side]} | {cells([rate(one) for one in figures])} "
        f"| {megabytes:,.0f} | {own:.2f} | {both:.2f} | {ratio} |"
    )


def markdown(results: Results) -> str:
    """Return both tables."""
    rows = [row(case, side, rounds) for case, rounds in results.items() for side in rounds]
    return "\n\n".join(filter(None, ["\n".join([HEAD, *rows]), aims.table(AIMS, TITLES, NAMES, results)]))
