"""Owns the grid: images/s for each number of threads and processes, and the share of what the latency alone allows."""

from __future__ import annotations

from statistics import median

from benchmarks.rounds import Figures, Results, rate

LATENCY = 0.020  # seconds from the request to the answer
PROCESSES = {"p1": 1, "p2": 2, "p4": 4}  # by the name of the case
THREADS = {"t1": 1, "t2": 2, "t4": 4, "t8": 8, "t16": 16, "t32": 32, "decode": 0}  # by the name of the side


def ideal(threads: int, processes: int) -> float:
    """Return the images/s at which every thread would only wait for the server."""
    return threads * processes / LATENCY


def cell(threads: int, processes: int, rounds: list[Figures]) -> str:
    """Return one cell of the table."""
    rates = [rate(one) for one in rounds]
    shown = f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
    return f"{shown}, {median(rates) / ideal(threads, processes):.0%}" if threads else shown


def markdown(results: Results) -> str:
    """Return the whole table: a column for each number of processes."""
    heads = [f"{PROCESSES[case]} process{'es' * (PROCESSES[case] > 1)}" for case in results]
    lines = [" | ".join(["| threads each", *heads, ""]), "|---:" * (1 + len(heads)) + "|"]
    for side in next(iter(results.values())):
        cells = [cell(THREADS[side], PROCESSES[case], rounds[side]) for case, rounds in results.items()]
        lines.append(" | ".join([f"| {THREADS[side] or 'decoding alone'}", *cells, ""]))
    lines = [line.rstrip() for line in lines]
    return "\n".join([*lines, "", "images/s, extremes of the rounds, and the share of threads x processes / latency"])
