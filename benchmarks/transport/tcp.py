"""Owns dfserve's side as from another machine: as `ours`, but every block goes through the tcp connection."""

from __future__ import annotations

from benchmarks.transport import ours
from benchmarks.transport.cases import Source
from dfserve.producer.send import send_dataflow_zmq

receive = ours.receive


def send(source: Source, address: str) -> None:
    """Send for ever."""
    send_dataflow_zmq(source, address, shared_memory=False)
