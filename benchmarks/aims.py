"""Owns aims: the ratio of two sides' figures in one round, what it should be, and the table of what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import Figures, Results, rate
from benchmarks.spread import cells

HEAD = "| aim for | of | against | ratio | min to max | aim | reached |\n|---|---|---|---:|---:|---:|---|"


@dataclass(frozen=True)
class Aim:
    """What the ratio of two sides should be.

    Attributes:
        case: of the results.
        side: whose figure is divided.
        against: the side by whose figure it is divided.
        bound: that the median should keep.
        most: the bound is an upper one; else a lower one.
        value: the figure.
        what: the figure in words.
    """

    case: str
    side: str
    against: str
    bound: float
    most: bool = False
    value: Callable[[Figures], float] = rate
    what: str = "rate"

    def reached(self, ratio: float) -> bool:
        """Whether a ratio is as it should be."""
        return ratio <= self.bound if self.most else ratio >= self.bound

    def row(self, title: str, names: Mapping[str, str], results: Results) -> str:
        """Return one line of the table."""
        rounds = results[self.case]
        pairs = zip(rounds[self.side], rounds[self.against], strict=True)
        ratios = [self.value(ours) / self.value(theirs) for ours, theirs in pairs]
        return (
            f"| {title}, {self.what} | {names[self.side]} | {names[self.against]} | {cells(ratios, '.2f')} "
            f"| {'≤' if self.most else '≥'} {self.bound:g} | {'yes' if self.reached(median(ratios)) else 'no'} |"
        )


def table(aims: Iterable[Aim], titles: Mapping[str, str], names: Mapping[str, str], results: Results) -> str:
    """Return the table of those aims whose sides were measured; empty if there are none.

    Args:
        aims: in the order of the lines.
        titles: of the cases.
        names: of the sides.
        results: of the run.
    """
    measured = [aim for aim in aims if {aim.side, aim.against} <= results.get(aim.case, {}).keys()]
    rows = [aim.row(titles[aim.case], names, results) for aim in measured]
    return "\n".join([HEAD, *rows]) if rows else ""


def cpu_per_byte(figures: Figures) -> float:
    """CPU seconds of the consumer's process for each byte."""
    return figures["cpu_s"] / figures["bytes"]
