"""Owns the figures that are shown: latencies, and how long starting takes, medians with their spread."""

from __future__ import annotations

from statistics import median

from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells
from benchmarks.transport.table import NAMES, TITLES

STARTING = "start"  # the case
STARTS = {"embedded": "it hosts the broker", "connecting": "it connects to a broker that runs"}
FIRST, IMPORT = 0.5, 0.25  # seconds: the aims
HEAD = (
    "| case | side | datapoints/s, a tenth of its most | p50, ms | min to max | p99, ms | min to max |\n"
    "|---|---|---:|---:|---:|---:|---:|"
)
HEAD_OF_STARTS = (
    "| a consumer starts | import to first datapoint, s | min to max | aim | import dfserve, s | min to max | aim |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def shown(figures: Figures) -> float:
    """Milliseconds: the median latency, or the time to the first datapoint."""
    return figures["p50_ms"] if "p50_ms" in figures else figures["seconds"] * 1e3


def row(case: str, side: str, figures: list[Figures]) -> str:
    """Return one line of the table of latencies."""
    load = median(rate(one) for one in figures)
    p50, p99 = (cells([one[part] for one in figures], ".2f") for part in ("p50_ms", "p99_ms"))
    return f"| {TITLES[case]} | {NAMES[side]} | {load:,.0f} | {p50} | {p99} |"


def row_of_start(side: str, figures: list[Figures]) -> str:
    """Return one line of the table of starts."""
    first, imported = (cells([one[part] for one in figures], ".3f") for part in ("seconds", "import_s"))
    return f"| {STARTS[side]} | {first} | ≤ {FIRST:g} | {imported} | ≤ {IMPORT:g} |"


def markdown(results: Results) -> str:
    """Return both tables."""
    rows = [
        row(case, side, figures)
        for case, rounds in results.items()
        if case != STARTING
        for side, figures in rounds.items()
    ]
    starts = [row_of_start(side, figures) for side, figures in results.get(STARTING, {}).items()]
    tables = [[HEAD, *rows] if rows else [], [HEAD_OF_STARTS, *starts] if starts else []]
    return "\n\n".join("\n".join(table) for table in tables if table)
