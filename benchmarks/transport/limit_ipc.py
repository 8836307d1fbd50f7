"""Owns the reference of the last hop: bare pyzmq PUSH/PULL over ipc, else as over tcp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport import limit_raw
from benchmarks.transport.cases import Source
from benchmarks.transport.sides import ipc_of


def send(source: Source, address: str) -> None:
    """Send for ever."""
    limit_raw.send(source, ipc_of(address))


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield messages for ever."""
    return limit_raw.receive(ipc_of(address), case)
