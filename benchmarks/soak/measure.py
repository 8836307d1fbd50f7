"""Owns a soak: one producer and one consumer at full speed, whose memory is looked at again and again."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Any

import psutil

from benchmarks import rounds
from benchmarks.group import Chosen, Group
from benchmarks.processes import PeerFailed, figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results
from benchmarks.soak.table import draw, markdown
from benchmarks.transport.cases import CASES
from benchmarks.transport.measure import PEER, between

SIDES = ("ours", "tcp", "standalone")
LOOKS = 600  # in all, at most
EVERY = 0.2  # seconds between two of them, at least
LEAST = 3  # looks: fewer are no course


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen, once: it is time that is wanted, not rounds."""

    def measure(case: str, side: str) -> Figures:
        return soaked(case, side, chosen.minutes * 60)

    return rounds.run(chosen.cases, chosen.sides, 1, measure, chosen.say)


def soaked(case: str, side: str, seconds: float) -> Figures:
    """Run one side for a time, and return its figures with the samples of its processes' memory.

    Raises:
        PeerFailed: it was over before its memory could be looked at, as on a machine that stood still for a moment.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        pids = between(side, case, address, log, stack)
        receive = (PEER, "receive", side, case, address, seconds, *pids)
        consumer: Any = stack.enter_context(started(*receive, log=log, stdout=subprocess.PIPE))
        producer: Any = stack.enter_context(started(PEER, "send", side, case, address, log=log))
        samples, began = [], time.monotonic()
        while consumer.poll() is None:
            sample = resident(producer.pid, consumer.pid, pids)
            samples.append({"seconds": time.monotonic() - began, **sample})
            time.sleep(max(EVERY, seconds / LOOKS))
        figures = figures_of(consumer, 0.0)
        looks = [sample for sample in samples if len(sample) > 1]
        if len(looks) < LEAST:
            raise PeerFailed(f"{side} was over after {len(looks)} looks at its memory")
    figures["bytes"] = figures["items"] * CASES[case].nbytes
    return {**figures, "samples": looks}  # type: ignore[dict-item]


def resident(producer: int, consumer: int, between: list[int]) -> dict[str, int]:
    """Return bytes of resident memory by process; nothing if one has just ended, or is only about to begin."""
    try:
        brokers = between or [child.pid for child in psutil.Process(consumer).children()]
        if not brokers:
            return {}
        pids = {"producer": producer, "broker": brokers[0], "consumer": consumer}
        found = {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}
        return found if all(found.values()) else {}  # none is left of one that has ended and was not waited for
    except psutil.NoSuchProcess:
        return {}


GROUP = Group(cases=tuple(CASES), sides=SIDES, needs={}, run=run, markdown=markdown, draw=draw, unit="seconds")
