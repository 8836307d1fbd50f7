"""Owns the figures that are shown: throughput and the broker's CPU time by size, and then the aims."""

from __future__ import annotations

from statistics import median

from benchmarks import aims
from benchmarks.aims import Aim
from benchmarks.rounds import Figures, Results
from benchmarks.scaling.sizes import SIZES
from benchmarks.spread import cells
from benchmarks.transport.cases import CASES

HEAD = (
    "| case | size | MB/s to consumers | min to max | broker CPU s/GB received | min to max | consumers' CPU s/GB |\n"
    "|---|---|---:|---:|---:|---:|---:|"
)
NAMES = {name: size.title for name, size in SIZES.items()}
TITLES = {name: case.title for name, case in CASES.items()}


def broker_cpu(figures: Figures) -> float:
    """CPU seconds of the broker for each byte that it took in, however often it gave it out."""
    return figures["broker_cpu_s"] / figures["received_bytes"]


def delivered(figures: Figures) -> float:
    """Bytes per second to all consumers."""
    return figures["bytes"] / figures["seconds"]


BROKER = "broker CPU s/GB"
AIMS = [
    *(
        Aim(case, side, "one", bound, most=True, value=broker_cpu, what=BROKER)
        for side, bound in (("producers16", 1.15), ("producers128", 1.15), ("groups2", 1.3))
        for case in CASES
    ),
    *(Aim(case, "consumers8", "one", 0.95, value=delivered, what="total throughput") for case in CASES),
    # Half as much again, where there are cores for it: below that a second broker is not worth its trouble.
    *(Aim(case, "brokers2", "producers2", 1.5, value=delivered, what="total throughput") for case in CASES),
]


def row(case: str, side: str, figures: list[Figures]) -> str:
    """Return one line of the table."""
    rates = [delivered(one) / 1e6 for one in figures]
    broker = [broker_cpu(one) * 1e9 for one in figures]
    trainer = median(one["cpu_s"] / one["bytes"] * 1e9 for one in figures)
    return f"| {TITLES[case]} | {NAMES[side]} | {cells(rates)} | {cells(broker, '.2f')} | {trainer:.2f} |"


def markdown(results: Results) -> str:
    """Return both tables."""
    rows = [row(case, side, figures) for case, rounds in results.items() for side, figures in rounds.items()]
    return "\n\n".join(filter(None, ["\n".join([HEAD, *rows]), aims.table(AIMS, TITLES, NAMES, results)]))
