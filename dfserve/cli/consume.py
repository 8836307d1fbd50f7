"""Owns `dfserve consume`: a sink that measures what arrives."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dfserve.cli.signals import insist
from dfserve.cli.types import DURATION, human_bytes

REFRESH = 0.5  # seconds between updates on a terminal
LINES = 10.0  # seconds between lines elsewhere
AGAIN = 1.0  # seconds between interruptions: one that comes within a finaliser is swallowed


class Meter:
    """Counts datapoints and their bytes, and shows them: a line that changes on a terminal, JSON elsewhere."""

    def __init__(self, as_json: bool) -> None:
        self.items = 0
        self.nbytes = 0
        self.started = time.monotonic()
        self._first: float | None = None
        self._live = sys.stderr.isatty() and not as_json
        self._due = self.started + (REFRESH if self._live else LINES)

    def add(self, datapoint: Any) -> None:
        """Count a datapoint: the bytes of its arrays, byte strings and texts."""
        if self._first is None:
            self._first = time.monotonic()
        self.items += 1
        parts = datapoint.values() if isinstance(datapoint, dict) else datapoint
        self.nbytes += sum(getattr(p, "nbytes", 0) or (len(p) if isinstance(p, (bytes, str)) else 8) for p in parts)

    def report(self, waited: float) -> dict[str, float]:
        """Return the figures so far; rates count from the first datapoint."""
        now = time.monotonic()
        seconds = max(now - (self._first or now), 1e-9)
        return {
            "items": self.items,
            "seconds": round(now - self.started, 3),
            "items_per_s": round(self.items / seconds, 1) if self.items > 1 else 0.0,
            "mb_per_s": round(self.nbytes / seconds / 1e6, 2) if self.items > 1 else 0.0,
            "waited_s": round(waited, 3),
        }

    def show(self, waited: float) -> None:
        """Show progress if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        figures = self.report(waited)
        if self._live:
            self._due = now + REFRESH
            click.echo(f"\r\x1b[K{line(figures)}", err=True, nl=False)
        else:
            self._due = now + LINES
            click.echo(json.dumps(figures), err=True)

    def end(self) -> None:
        """Leave the live line."""
        if self._live:
            click.echo("", err=True)


def line(figures: dict[str, float]) -> str:
    """Write figures for people."""
    share = figures["waited_s"] / figures["seconds"] if figures["seconds"] else 0
    rate = human_bytes(figures["mb_per_s"] * 1e6)
    return (
        f"{figures['items']:.0f} datapoints, {figures['items_per_s']:.0f}/s, {rate}/s, waited {share:.0%} of the time"
    )


@click.command()
@click.argument("addresses", metavar="ADDR...", nargs=-1, required=True, envvar="DFSERVE_FROM")
@click.option(
    "--count", type=click.IntRange(min=1), envvar="DFSERVE_COUNT", help="Stop after this many. [env: DFSERVE_COUNT]"
)
@click.option("--seconds", type=DURATION, envvar="DFSERVE_SECONDS", help="Stop after this long. [env: DFSERVE_SECONDS]")
@click.option("--json", "as_json", is_flag=True, envvar="DFSERVE_JSON", help="Print JSON. [env: DFSERVE_JSON]")
@click.option(
    "--pipeline",
    default="default",
    show_default=True,
    envvar="DFSERVE_CONSUME_PIPELINE",
    help="The NAME under which `dfserve produce NAME=MODULE:FACTORY` serves it. [env: DFSERVE_CONSUME_PIPELINE]",
)
@click.option(
    "--group",
    default="default",
    show_default=True,
    envvar="DFSERVE_GROUP",
    help="Consumers of one group share the data; a group of its own gets all of it. [env: DFSERVE_GROUP]",
)
@click.option(
    "--min-producers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    envvar="DFSERVE_MIN_PRODUCERS",
    help="Workers that must have ended, at each broker, before a finite stream ends. [env: DFSERVE_MIN_PRODUCERS]",
)
@click.option(
    "--timeout",
    type=DURATION,
    default="5m",
    show_default=True,
    envvar="DFSERVE_TIMEOUT",
    help="Give up when nothing arrives for this long. [env: DFSERVE_TIMEOUT]",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    envvar="DFSERVE_KEYS",
    help="This client's key file, made by `dfserve keys` on the broker's machine; "
    "for brokers that ask for one. [env: DFSERVE_KEYS]",
)
def consume(
    addresses: tuple[str, ...],
    count: int | None,
    seconds: float | None,
    as_json: bool,
    pipeline: str,
    group: str,
    min_producers: int,
    timeout: float,
    keys: Path | None,
) -> None:
    """Take datapoints from a broker, or several, and throw them away, to measure what a trainer would get.

    The pipeline is taken as a stream; what a loader in epochs mode would get of the same workers is about as much.

    Reports datapoints/s, MB/s and the time spent waiting. Waiting near 100% is normal here: this consumer does nothing
    else. It ends with the stream, at --count or --seconds, or with Ctrl-C.

    \b
    Example:
      dfserve consume tcp://127.0.0.1:8877 --seconds 10
    """
    from dfserve.consumer.remote import RemoteDataZMQ
    from dfserve.consumer.session import load

    load()  # now: Python ends as of Ctrl-C where that came into an import, whoever caught it
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was counted is said
    insist()
    meter = Meter(as_json)
    with RemoteDataZMQ(
        addresses, bind=False, pipeline=pipeline, group=group, min_producers=min_producers, timeout=timeout, keys=keys
    ) as source:
        try:
            with ended_after(seconds, meter.started):
                drain(source, meter, count)
        except KeyboardInterrupt:
            meter.end()
        finally:
            figures = meter.report(source.waited)
            click.echo(json.dumps(figures) if as_json else line(figures))
    if seconds is not None and not meter.items and figures["seconds"] >= round(seconds, 3):
        click.echo(
            f"nothing arrived within {seconds:g} s (--seconds): see that a broker is at {' and '.join(addresses)} and "
            f"that `dfserve produce` sends to it; --timeout in place of --seconds says who is missing",
            err=True,
        )


@contextmanager
def ended_after(seconds: float | None, started: float) -> Iterator[None]:
    """Interrupt what is done, as Ctrl-C does, so many seconds after ``started``: also a wait for what never comes."""
    try:
        if seconds is not None:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            left = max(1e-6, started + seconds - time.monotonic())  # 0 would be never
            signal.setitimer(signal.ITIMER_REAL, left, AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def drain(source: Any, meter: Meter, count: int | None) -> None:
    """Consume until the end, or a count."""
    for datapoint in source:
        meter.add(datapoint)
        meter.show(source.waited)
        if count is not None and meter.items >= count:
            break
    meter.end()
