"""Owns how figures of several rounds are shown: the median, and the least and greatest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.rounds import Figures, rate


def ratios(ours: list[Figures], theirs: list[Figures]) -> list[float]:
    """Return the ratio of the rates in each round: neighbours in time, so that a noisy minute hits both."""
    return [rate(a) / rate(b) for a, b in zip(ours, theirs, strict=True)]


def cells(values: Sequence[float], form: str = ",.0f") -> str:
    """Return two cells of a table: the median, and the extremes."""
    return f"{median(values):{form}} | {min(values):{form}} to {max(values):{form}}"
