"""Owns the measuring of one size: brokers, their producers and consumers, and what went through them in a time."""

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


class Fleet:
    """The brokers of one size, counted as one."""

    def __init__(self, brokers: list[Watched]) -> None:
        self.brokers = brokers

    def total(self, metric: str) -> float:
        """Return a metric, added over labels and brokers."""
        return sum(each.total(metric) for each in self.brokers)

    def cpu_seconds(self) -> float:
        """Return the CPU time that all have used."""
        return sum(each.cpu_seconds() for each in self.brokers)

    def await_each(self, metric: str, least: float) -> None:
        """Wait until each has at least so much of a metric."""
        for each in self.brokers:
            each.await_total(metric, least)


def scaled(case: str, side: str, seconds: float) -> Figures:
    """Measure one size."""
    size = SIZES[side]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        fleet = Fleet([stack.enter_context(broker(log)) for _ in range(size.brokers)])
        addresses = [each.ipc for each in fleet.brokers]
        consumers = [
            stack.enter_context(started(PEER, "receive", case, f"group{group}", *addresses, log=log))
            for group in range(size.groups)
            for _ in range(size.consumers)
        ]
        fleet.await_each("dfserve_consumers", len(consumers))
        for number in range(size.processes):
            where = fleet.brokers[number % size.brokers].tcp
            stack.enter_context(started(PEER, "send", case, where, size.producers // size.processes, log=log))
        fleet.await_each("dfserve_producers", size.producers // size.brokers)
        fleet.await_each(DELIVERED, 1)
        settle(fleet, size.groups, seconds)
        return counted(fleet, [consumer.pid for consumer in consumers], CASES[case].nbytes, seconds)


def settle(fleet: Fleet, groups: int, seconds: float) -> None:
    """Wait until what comes in goes out: while the queue fills, a gigabyte received is not yet a gigabyte sent."""
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        received, delivered = fleet.total(RECEIVED), fleet.total(DELIVERED)
        time.sleep(min(LOOK, seconds))
        received, delivered = fleet.total(RECEIVED) - received, fleet.total(DELIVERED) - delivered
        if (received > 0 and abs(received - delivered / groups) <= STEADY * received) or time.monotonic() > deadline:
            return


def counted(fleet: Fleet, consumers: list[int], nbytes: int, seconds: float) -> Figures:
    """Return what goes through the brokers in a time, from their own counters, and the CPU time of them and consumers.

    It takes longer than ``seconds`` only where nothing went through in these.

    Raises:
        PeerFailed: nothing did in a minute either.
    """

    def now() -> list[float]:
        times = [psutil.Process(pid).cpu_times() for pid in consumers]
        cpu = [fleet.cpu_seconds(), sum(each.user + each.system for each in times)]
        return [time.perf_counter(), fleet.total(RECEIVED), fleet.total(DELIVERED), *cpu]

    before = now()
    deadline = before[0] + GRACE
    while True:
        time.sleep(seconds)
        changes = [after - then for after, then in zip(now(), before, strict=True)]
        elapsed, received, delivered, broker_cpu, consumers_cpu = changes
        if received and delivered and broker_cpu:  # whose clock ticks a hundred times a second
            break
        if before[0] + elapsed > deadline:
            raise PeerFailed(
                f"{received:,.0f} bytes came to brokers in {elapsed:.0f} s, and {delivered:,.0f} left them"
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
