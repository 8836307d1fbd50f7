"""Owns the plot of a group: a panel for each case, a bar for each side (its median), the extremes as a line."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.group import Group
from benchmarks.rounds import Figures, Results

WIDTH, BAR, PANEL = 9.0, 0.3, 0.9  # inches: of the figure; high for each bar; and for each panel's title and axis
LINES = 2.5  # inches: high for a panel without bars
LETTERS = 130  # of a title's line


def plot(group: Group, title: str, results: Results, file: Path) -> None:
    """Draw what a run measured.

    Raises:
        ImportError: there is no matplotlib.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    heights = [PANEL + (LINES if group.draw else BAR * len(rounds)) for rounds in results.values()]
    size = (WIDTH, sum(heights) + PANEL)
    ratios = {"height_ratios": heights}
    figure, panels = pyplot.subplots(len(results), figsize=size, gridspec_kw=ratios, squeeze=False)
    figure.set_layout_engine("constrained")
    figure.suptitle(textwrap.fill(title, LETTERS), fontsize=7)
    for panel, (case, rounds) in zip(panels[:, 0], results.items(), strict=True):
        panel.set_title(case, fontsize=9)
        panel.set_xlabel(group.unit, fontsize=8)
        if group.draw:
            group.draw(panel, rounds)
        else:
            bars(panel, rounds, group.figure)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def bars(panel: Any, rounds: dict[str, list[Figures]], figure: Callable[[Figures], float]) -> None:
    """Draw a bar for each side, dfserve's in another colour than what it is measured against."""
    values = {side: [figure(one) for one in figures] for side, figures in rounds.items()}
    middles = [median(each) for each in values.values()]
    spread = [
        [middle - min(each) for middle, each in zip(middles, values.values(), strict=True)],
        [max(each) - middle for middle, each in zip(middles, values.values(), strict=True)],
    ]
    theirs = ("rival", "limit", "bare", "plain")
    colours = ["tab:gray" if side.startswith(theirs) else "tab:blue" for side in values]
    drawn = panel.barh(list(values), middles, xerr=spread, color=colours)
    labels = [f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}" for middle in middles]
    panel.bar_label(drawn, labels, padding=4, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.15)
