"""Owns the reference of the last hop as most write it: bare pyzmq over ipc with malloc as it is by default.

A trainer's process is not one in which a library may change malloc for all, so this is what dfserve's CPU time in it is
compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport import limit_raw
from benchmarks.transport.cases import Source
from benchmarks.transport.sides import ipc_of


def send(source: Source, address: str) -> None:
    """Send for ever."""
    limit_raw.send(source, ipc_of(address), keeps=False)


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield messages for ever."""
    return limit_raw.receive(ipc_of(address), case, keeps=False)
