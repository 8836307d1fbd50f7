"""Owns the measuring of latencies, at a tenth of what a side reaches, and of starting."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess

from benchmarks import rounds
from benchmarks.brokers import broker
from benchmarks.group import Chosen, Group
from benchmarks.latency.table import STARTING, STARTS, markdown, shown
from benchmarks.processes import GRACE, figures_of, free_port, logs, started
from benchmarks.rounds import Figures, Results, rate
from benchmarks.transport.cases import CASES
from benchmarks.transport.measure import between, transported

LOAD = 0.1  # of the rate that the side reached at full speed, in this run
SIDES = ("ours", "standalone", "rival_tensorpack", "limit_raw", "limit_proxy")
PEER = "benchmarks.latency.peer"


def run(chosen: Chosen) -> Results:
    """Measure all that was chosen."""

    @functools.cache
    def full(case: str, side: str) -> float:
        return rate(transported(side, case, chosen.seconds, {}))

    def measure(case: str, side: str) -> Figures:
        return delayed(case, side, LOAD * full(case, side), chosen.seconds)

    cases = [case for case in chosen.cases if case != STARTING]
    results = rounds.run(cases, [side for side in chosen.sides if side in SIDES], chosen.rounds, measure, chosen.say)
    starts = [side for side in chosen.sides if side in STARTS]
    if STARTING in chosen.cases:
        results |= rounds.run([STARTING], starts, chosen.rounds, lambda _, side: begun(side), chosen.say)
    return {case: sides for case, sides in results.items() if sides}


def delayed(case: str, side: str, load: float, seconds: float) -> Figures:
    """Measure one side at ``load`` datapoints/s."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        between(side, case, address, log, stack)
        receive = (PEER, "receive", side, case, address, seconds)
        consumer = stack.enter_context(started(*receive, log=log, stdout=subprocess.PIPE))
        stack.enter_context(started(PEER, "send", side, case, address, load, log=log))
        return figures_of(consumer, seconds)


def begun(side: str) -> Figures:
    """Measure a consumer from `import dfserve` to its first datapoint; a producer is ready and waits for it."""
    send = ("benchmarks.transport.peer", "send", "ours", "image")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(logs())
        if side == "connecting":
            watched = stack.enter_context(broker(log))
            stack.enter_context(started(*send, watched.tcp, log=log))
            watched.await_total("dfserve_producers", 1)
            args = (watched.ipc, "connect")
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:  # a producer that knocks is ready
                address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
                stack.enter_context(started(*send, address, log=log))
                server.settimeout(GRACE)
                server.accept()[0].close()
            args = (address, "bind")
        starting = started("benchmarks.latency.starting", *args, log=log, stdout=subprocess.PIPE)
        return figures_of(stack.enter_context(starting), 0.0)


GROUP = Group(
    cases=(*CASES, STARTING),
    sides=(*SIDES, *STARTS),
    needs={"rival_tensorpack": ("tensorpack.dataflow",)},
    run=run,
    markdown=markdown,
    figure=shown,
    unit="ms (median from produced to received; or to the first datapoint)",
)
