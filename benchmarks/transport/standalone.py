"""Owns dfserve's side with `dfserve broker`: to it over tcp, and on to a consumer on its host, all with defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport import ours
from benchmarks.transport.sides import ipc_of
from dfserve.consumer.remote import RemoteDataZMQ

send = ours.send


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever."""
    with RemoteDataZMQ(ipc_of(address), bind=False) as data:
        yield from data
