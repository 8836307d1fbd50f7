"""Owns what runs in a producers' and in a consumer's process: `python -m benchmarks.scaling.peer ...`."""

from __future__ import annotations

import sys
import threading

from benchmarks.transport.cases import CASES, Source
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.producer.send import send_dataflow_zmq


def send(case: str, address: str, sessions: str) -> None:
    """Send for ever, as so many producers on other machines: each has its own session, socket and thread."""
    source = Source(CASES[case].make())
    options = {"shared_memory": False}
    threads = [
        threading.Thread(target=send_dataflow_zmq, args=(source, address), kwargs=options, daemon=True)
        for _ in range(int(sessions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def receive(case: str, group: str, *addresses: str) -> None:  # noqa: ARG001  # as above
    """Receive for ever as a member of a group, from one broker or several."""
    with RemoteDataZMQ(addresses, bind=False, group=group) as data:
        for datapoint in data:
            del datapoint


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
