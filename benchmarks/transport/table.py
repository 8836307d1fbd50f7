"""Owns the figures that are shown: medians with their spread, ratios round by round, as a markdown table."""

from __future__ import annotations

from statistics import median

from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells, ratios
from benchmarks.transport.cases import CASES

NAMES = {"ours": "dfserve", "curve": "dfserve, encrypted", "rival_tensorpack": "tensorpack", "rival_raw": "bare pyzmq"}
HEAD = (
    "| case | side | datapoints/s | min to max | MB/s | consumer CPU s/GB | with broker | x tensorpack | min to max "
    "| aim |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(case: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures = rounds[side]
    megabytes = median(one["bytes"] / one["seconds"] / 1e6 for one in figures)
    own = median(one["cpu_s"] / one["bytes"] * 1e9 for one in figures)
    both = median((one["cpu_s"] + one["broker_cpu_s"]) / one["bytes"] * 1e9 for one in figures)
    rival = rounds.get("rival_tensorpack")
    ratio = cells(ratios(figures, rival), ".2f") if rival and side != "rival_tensorpack" else " | "
    aim = f"≥ {CASES[case].aim}" if side == "ours" else ""
    return (
        f"| {CASES[case].title} | {NAMES[side]} | {cells([rate(one) for one in figures])} "
        f"| {megabytes:,.0f} | {own:.2f} | {both:.2f} | {ratio} | {aim} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(case, side, rounds) for case, rounds in results.items() for side in rounds)])
