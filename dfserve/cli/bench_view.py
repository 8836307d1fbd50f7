"""Owns how `dfserve bench` is shown: a line that changes on a terminal, a table, and the advice in sentences."""

from __future__ import annotations

import math
import sys
import textwrap
import time
from collections.abc import Iterator

import click

from dfserve.cli.bench_advice import HEADROOM, Measured, disturbed, human_bits, machine_rate, scaling, transport_cost
from dfserve.cli.bench_rounds import Result, Stage
from dfserve.cli.types import human_bytes

REFRESH = 0.2  # seconds between updates on a terminal
WIDTH = 100  # characters of a line of sentences; the table has 80


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._due = 0.0

    def show(self, what: str, rate: float) -> None:
        """Show what is done and how fast, if it is time to."""
        if self._live and time.monotonic() >= self._due:
            self._due = time.monotonic() + REFRESH
            click.echo(f"\r\x1b[K{what}" + (f": {count(rate)}/s" if rate else ""), err=True, nl=False)

    def end(self) -> None:
        """Take the line away."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)


def text(result: Result) -> str:
    """Write the result for people."""
    return "\n".join(
        textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines(result)
    )


def lines(result: Result) -> Iterator[str]:
    """Write a line of the table, or a sentence, at a time."""
    m = result.measured
    yield f"{result.pipeline}: {result.structure}, {human_bytes(m.nbytes)} each; {_several(m.cores, 'CPU')} here"
    yield ""
    yield f"{'':28}{'datapoints/s':>14}{'low':>10}{'high':>10}{'MB/s':>10}{'CPUs':>8}"
    for stage in (result.bare, result.together, result.transported):
        yield _row(stage, m)
    yield ""
    if disturbed(m):
        yield (
            f"Other processes kept {m.others:.1f} CPUs busy meanwhile, so what follows is a guess: measure again on a"
            " quiet machine."
        )
    if m.workers > 1:
        yield f"{m.workers} loops side by side make {scaling(m) * m.workers:.2f} times what one makes."
    yield (
        f"Transport costs {transport_cost(m):.0%} of that; the broker kept {_cpus(m.broker_cpu)} busy, the consumer"
        f" {_cpus(m.consumer_cpu)}, and it waited {m.waited:.0%} of the time."
    )
    verdict = result.verdict
    yield f"What limits here: {verdict.limit}: {verdict.because}. Remedy: {verdict.remedy}."
    advice = result.batching
    yield (
        f"Batching in the pipeline would pay, of {advice.size} or more: {advice.because}."
        if advice.size > 1
        else f"Batching in the pipeline would not pay: {advice.because}."
    )
    yield from _needed(result)


def _row(stage: Stage, m: Measured) -> str:
    rate = stage.median("rate")
    name = f"{stage.name}, {_several(stage.processes, 'process')}"
    spread = f"{count(min(stage.rates)):>10}{count(max(stage.rates)):>10}"
    return f"{name:28}{count(rate):>14}{spread}{rate * m.nbytes / 1e6:>10.1f}{_number(stage.median('cpu')):>8}"


def _needed(result: Result) -> Iterator[str]:
    need = result.needed
    m = result.measured
    if need is None:
        yield (
            f"A data machine like this one would send about {count(machine_rate(m))}/s; --need RATE tells how many"
            " a training needs."
        )
        return
    yield ""
    machines = "this machine, or one like it" if need.machines == 1 else f"{need.machines} machines like this one"
    spare = f"{HEADROOM - 1:.0%} to spare"
    yield f"For {count(need.rate)} datapoints/s, with {spare}: {_several(need.workers, 'worker')}, on {machines}."
    link = result.question.link
    bits = human_bits(need.bits)
    if link is None:
        yield f"That is {bits} on the trainer's link; --link 10Gbit tells whether it carries that."
    else:
        fits = "fits" if need.limit.limit != "link" else "does not fit"
        yield f"That is {bits} on the trainer's link, which {fits} into {human_bits(link)}."
    limit = need.limit
    if need.enough:
        yield f"One broker and one consumer carry it. What it hangs on: {limit.limit}: {limit.because}."
    else:
        yield (
            f"But no more than about {count(need.reachable)}/s can be had: {limit.limit}: {limit.because}."
            f" Remedy: {limit.remedy}."
        )


def count(rate: float) -> str:
    """Write a rate with three digits at least."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _several(number: int, word: str) -> str:
    ending = "" if number == 1 else "es" if word.endswith("s") else "s"
    return f"{number} {word}{ending}"


def _cpus(number: float) -> str:
    return f"{_number(number)} CPUs"


def _number(number: float) -> str:
    return "?" if math.isnan(number) else f"{number:.2f}"
