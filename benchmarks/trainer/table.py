"""Owns the figures that are shown: rates, the trainer's CPU time, and how long its step waits for the next batch."""

from __future__ import annotations

from statistics import median

from benchmarks.guarantee.cases import CASES
from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells
from benchmarks.trainer.steps import SIDES

HEAD = (
    "| case | what is taken | datapoints/s | min to max | trainer CPU us each | wait for a batch, ms | 99 % below |\n"
    "|---|---|---:|---:|---:|---:|---:|"
)


def row(case: str, side: str, figures: list[Figures]) -> str:
    """Return one line of the table."""
    cpu = f"{median(one['cpu_s'] / one['items'] * 1e6 for one in figures):.2f}" if "cpu_s" in figures[0] else ""
    waits = [
        f"{median(one[which] for one in figures):.2f}" if which in figures[0] else ""
        for which in ("wait_ms", "wait_high_ms")
    ]
    return (
        f"| {CASES[case].title} | {SIDES[side].title} | {cells([rate(one) for one in figures])} | {cpu} "
        f"| {' | '.join(waits)} |"
    )


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join(
        [HEAD, *(row(case, side, found) for case, sides in results.items() for side, found in sides.items())]
    )
