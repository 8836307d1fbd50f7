"""Owns the measuring of one size: a broker, its producers and consumers, and what went through it in a time."""

from __future__ import annotations

import contextlib
import time

import psutil

from benchmarks import rounds
from benchmarks.brokers import Watched, broker
from benchmarks.group import Chosen, Group
from benchmarks.processes import GRACE, PeerFailed, logs, started
from benchmarks.rounds import Figures, Results
from benchmarks.scaling.sizes import SIZES
from benchmarks.scaling.table import markdown
from benchmarks.transport.cases import CASES

PEER = "benchmarks.scaling.peer"
# Once the broker's queue has filled, as much goes out as comes in, within this share, over LOOK seconds.
STEADY, LOOK = 0.1, 1.0
PATIENCE = 10.0  # times the measured seconds that it may take
RECEIVED, DELIVERED = "dfserve_received_bytes_total", "dfserve_delivered_bytes_total"


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    def measure(case: str, side: str) -> Figures:
        return scaled(case, side, chosen.seconds)

    return rounds.run(chosen.cases, chosen.sides, chosen.rounds, measure, chosen.say)


def scaled(case: str, side: str, seconds: float) -> Figures:
    """Measure one size."""
    size = SIZES[side]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        watched = stack.enter_context(broker(log))
        consumers = [
            stack.enter_context(started(PEER, "receive", case, watched.ipc, f"group{group}", log=log))
            for group in range(size.groups)
            for _ in range(size.consumers)
        ]
        watched.await_total("dfserve_consumers", len(consumers))
        for _ in range(size.processes):
            sessions = size.producers // size.processes
            stack.enter_context(started(PEER, "send", case, watched.tcp, sessions, log=log))
        watched.await_total("dfserve_producers", size.producers)
        watched.await_total(DELIVERED, 1)
        settle(watched, size.groups, seconds)
        return counted(watched, [consumer.pid for consumer in consumers], CASES[case].nbytes, seconds)


def settle(watched: Watched, groups: int, seconds: float) -> None:
    """Wait until what comes in goes out: while the queue fills, a gigabyte received is not yet a gigabyte sent."""
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        received, delivered = watched.total(RECEIVED), watched.total(DELIVERED)
        time.sleep(min(LOOK, seconds))
        received, delivered = watched.total(RECEIVED) - received, watched.total(DELIVERED) - delivered
        if (received > 0 and abs(received - delivered / groups) <= STEADY * received) or time.monotonic() > deadline:
            return


def counted(watched: Watched, consumers: list[int], nbytes: int, seconds: float) -> Figures:
    """Return what goes through a broker in a time, from its own counters, and the CPU time of broker and consumers.

    It takes longer than ``seconds`` only where nothing went through in these.

    Raises:
        PeerFailed: nothing did in a minute either.
    """

    def now() -> list[float]:
        times = [psutil.Process(pid).cpu_times() for pid in consumers]
        cpu = [watched.cpu_seconds(), sum(each.user + each.system for each in times)]
        return [time.perf_counter(), watched.total(RECEIVED), watched.total(DELIVERED), *cpu]

    before = now()
    deadline = before[0] + GRACE
    while True:
        time.sleep(seconds)
        changes = [after - then for after, then in zip(now(), before, strict=True)]
        elapsed, received, delivered, broker_cpu, consumers_cpu = changes
        if received and delivered:
            break
        if before[0] + elapsed > deadline:
            raise PeerFailed(
                f"{received:,.0f} bytes came to the broker in {elapsed:.0f} s, and {delivered:,.0f} left it"
            )
    return {
        "items": delivered / nbytes,
        "seconds": elapsed,
        "bytes": delivered,
        "received_bytes": received,
        "cpu_s": consumers_cpu,
        "broker_cpu_s": broker_cpu,
    }


GROUP = Group(
    cases=tuple(CASES), sides=tuple(SIZES), needs={}, run=run, markdown=markdown, unit="datapoints/s, all consumers"
)
