"""Owns the figures that are shown: medians with their spread, and the share of the stream's rate."""

from __future__ import annotations

from statistics import median

from benchmarks.guarantee.cases import CASES
from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells, ratios

NAMES = {"stream": "stream", "strict": "epochs, strict order", "arrival": "epochs, order of arrival"}
HEAD = (
    "| case | mode | datapoints/s | min to max | consumer CPU us each | broker CPU us each | x stream | min to max "
    "| aim |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def row(case: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures = rounds[side]
    own, broker = (median(one[which] / one["items"] * 1e6 for one in figures) for which in ("cpu_s", "broker_cpu_s"))
    stream = rounds.get("stream")
    ratio = cells(ratios(figures, stream), ".2f") if stream and side != "stream" else " | "
    aim = f"≥ {CASES[case].aim}" if side == "strict" else ""
    return (
        f"| {CASES[case].title} | {NAMES[side]} | {cells([rate(one) for one in figures])} "
        f"| {own:.2f} | {broker:.2f} | {ratio} | {aim} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(case, side, rounds) for case, rounds in results.items() for side in rounds)])
