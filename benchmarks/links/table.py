"""Owns the table of the group: rates with their spread, what the link carried, and what it cost at either end."""

from __future__ import annotations

from statistics import median

from benchmarks.links.cases import CASES
from benchmarks.links.peer import NONE
from benchmarks.rounds import Figures, Results
from benchmarks.spread import cells, ratios

HEAD = (
    "| case | compression | datapoints/s | min to max | MB/s | Mbit/s on the link | bytes / those on the link "
    "| producer CPU s/GB | broker CPU s/GB | x none | min to max |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(case: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures = rounds[side]
    megabytes = median(one["bytes"] / one["seconds"] / 1e6 for one in figures)
    megabits = median(one["wire_bytes"] * 8 / one["seconds"] / 1e6 for one in figures)
    shrunk = median(one["bytes"] / one["wire_bytes"] for one in figures)
    cost = [median(one[name] / one["bytes"] * 1e9 for one in figures) for name in ("producer_cpu_s", "broker_cpu_s")]
    none = rounds.get(NONE)
    ratio = cells(ratios(figures, none), ".2f") if none and side != NONE else " | "
    rates = cells([one["items"] / one["seconds"] for one in figures])
    return (
        f"| {CASES[case].title} | {side} | {rates} | {megabytes:,.1f} | {megabits:,.0f} | {shrunk:.2f} "
        f"| {cost[0]:.2f} | {cost[1]:.2f} | {ratio} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(case, side, rounds) for case, rounds in results.items() for side in rounds)])
