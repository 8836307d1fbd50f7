"""Owns what runs at either end of the link: `python -m benchmarks.links.peer send|receive ...`."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from benchmarks.counting import cpu_seconds, print_and_end, take
from benchmarks.links.cases import CASES, Case, source_of
from benchmarks.rounds import Figures
from benchmarks.transport.peer import WARM_UP
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.producer.send import send_dataflow_zmq

NONE = "none"  # the side without compression


def send(side: str, case: str, address: str, listing: str) -> None:
    """Send for ever."""
    send_dataflow_zmq(
        source_of(case, Path(listing)), address, compression=None if side == NONE else side, shared_memory=False
    )


def snapshot(received: Path, producer: psutil.Process) -> Figures:
    """Return what only grows: CPU seconds of all three processes, and bytes that came over the link."""
    own, broker = cpu_seconds()
    times = producer.cpu_times()
    return {
        "cpu_s": own,
        "broker_cpu_s": broker,
        "producer_cpu_s": times.user + times.system,
        "wire_bytes": float(received.read_text()),
    }


def receive(case: Case, address: str, seconds: float, received: Path, producer: psutil.Process) -> Figures:
    """Host a broker, and count what comes."""
    with RemoteDataZMQ(address) as data:
        stream = iter(data)
        next(stream)
        take(stream, case.stride, min(WARM_UP, seconds))
        before = snapshot(received, producer)
        items, elapsed = take(stream, case.stride, seconds)
        while (after := snapshot(received, producer))["wire_bytes"] == before["wire_bytes"]:
            more, longer = take(stream, case.stride, seconds)  # what was taken had come before
            items, elapsed = items + more, elapsed + longer
    grown = {name: after[name] - before[name] for name in before}
    return {"items": items, "seconds": elapsed, "bytes": items * case.nbytes, **grown}


def main(role: str, side: str, case: str, address: str, *rest: str) -> None:
    """Send until killed, or receive for a time, print the figures as JSON and exit."""
    if role == "send":
        send(side, case, address, *rest)
    seconds, received, producer = rest
    print_and_end(receive(CASES[case], address, float(seconds), Path(received), psutil.Process(int(producer))))


if __name__ == "__main__":
    main(*sys.argv[1:])
