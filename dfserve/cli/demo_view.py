"""Owns how the demo looks while it runs: a table that is redrawn on a terminal, else a line every second."""

from __future__ import annotations

from collections import deque

import click

from dfserve.cli.demo_figures import Figures, Reading
from dfserve.cli.types import human_bytes

LINES = 1.0  # seconds between two lines
REFRESH = 0.25  # seconds between two drawings
SPAN = 2.0  # seconds that the rates are taken over: producers report how long they were held back once a second
BAR = 20  # characters of a full bar


class View:
    """Shows readings as they come.

    Args:
        live: draw a table over and over; else write lines.
    """

    def __init__(self, live: bool) -> None:
        self.interval = REFRESH if live else LINES
        self._live = live
        self._drawn = 0
        self._past: deque[tuple[Reading, int]] = deque()  # readings of the span, and what had arrived by then

    def show(self, now: Reading, figures: Figures) -> None:
        """Show what happened since the oldest reading of the span."""
        self._past.append((now, figures.arrived.total()))
        while len(self._past) > 2 and now.when - self._past[0][0].when > SPAN:
            self._past.popleft()
        before, arrived_before = self._past[0]
        if before is now:
            return
        seconds = max(now.when - before.when, 1e-9)
        arrived = figures.arrived.total() - arrived_before
        lines = [_producer(name, before, now, figures, seconds) for name in sorted(now.received)]
        lines.append(f"{'queue':9} {_bar(now.occupancy)}  {human_bytes(now.queued)} of {human_bytes(now.capacity)}")
        lines.append(f"{'trainer':9} {arrived / seconds:5.0f} images/s, waited {figures.waited_share:.0%} of the time")
        if self._live:
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            click.echo(up + "\n".join(f"\x1b[K{line}" for line in lines))
            self._drawn = len(lines)
        else:
            click.echo(" | ".join(" ".join(line.split()) for line in lines))


def _producer(name: str, before: Reading, now: Reading, figures: Figures, seconds: float) -> str:
    """One producer's rate, what of it lies in the queue (sent and not trained on), and how long it was held back."""
    count = now.received[name] - before.received.get(name, 0)
    nbytes = now.nbytes[name] - before.nbytes.get(name, 0)
    waiting = max(0, now.received[name] - figures.arrived[name])
    share = waiting * now.nbytes[name] / max(1, now.received[name]) / now.capacity
    blocked = min(1.0, (now.blocked.get(name, 0) - before.blocked.get(name, 0)) / seconds)
    return (
        f"{name:9} {_bar(min(1.0, share))}  {count / seconds:5.0f} images/s, {human_bytes(nbytes / seconds)}/s, "
        f"{waiting} queued, held back {blocked:.0%}"
    )


def _bar(share: float) -> str:
    """Draw a share of the queue's capacity."""
    return f"[{'#' * round(BAR * share):{BAR}}] {share:4.0%}"
