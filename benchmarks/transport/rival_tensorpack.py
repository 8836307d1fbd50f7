"""Owns tensorpack's side: its `send_dataflow_zmq` and `RemoteDataZMQ` with their defaults (pickle over PUSH/PULL)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport.cases import Source


def send(source: Source, address: str) -> None:
    """Send for ever."""
    from tensorpack.dataflow import send_dataflow_zmq

    send_dataflow_zmq(source, address)


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever."""
    from tensorpack.dataflow import RemoteDataZMQ

    data = RemoteDataZMQ(address)
    data.reset_state()
    yield from data
