"""Owns dfserve's side: `send_dataflow_zmq` to a `RemoteDataZMQ` that hosts its broker, both with their defaults.

All run on one machine, so that blocks lie in memory that they share, and tcp carries what is said of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport.cases import Source
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.producer.send import send_dataflow_zmq


def send(source: Source, address: str) -> None:
    """Send for ever."""
    send_dataflow_zmq(source, address)


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever."""
    with RemoteDataZMQ(address) as data:
        yield from data
