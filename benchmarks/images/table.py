"""Owns the table of the group: each side's rate against that of plain loops."""

from __future__ import annotations

from statistics import median

from benchmarks.images.sides import SIDES, YARDSTICKS
from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells, ratios

HEAD = (
    "| side | images/s | min to max | consumer CPU ms/image | all CPU ms/image | x plain loops | min to max "
    "| x plain loops with its augmentors | min to max | aim |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    figures, chosen = rounds[side], SIDES[side]
    own = median(one["cpu_s"] / one["items"] * 1e3 for one in figures)
    both = median((one["cpu_s"] + one["workers_cpu_s"]) / one["items"] * 1e3 for one in figures)
    compared = []
    for yardstick in ("bare", YARDSTICKS[chosen.augmentors]):
        there = side != yardstick and yardstick in rounds
        compared.append(cells(ratios(figures, rounds[yardstick]), ".2f") if there else " | ")
    aim = f"≥ {chosen.aim}" if chosen.aim else ""
    return (
        f"| {chosen.title} | {cells([rate(one) for one in figures])} | {own:.2f} | {both:.2f} "
        f"| {' | '.join(compared)} | {aim} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(side, rounds) for rounds in results.values() for side in rounds)])
