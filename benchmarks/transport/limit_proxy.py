"""Owns the reference of two hops: bare pyzmq over tcp to `zmq.proxy` in a third process, and from there over ipc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zmq

from benchmarks.transport import limit_raw
from benchmarks.transport.cases import CASES
from benchmarks.transport.limit_raw import opened
from benchmarks.transport.sides import ipc_of

send = limit_raw.send


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield messages for ever."""
    socket = opened(zmq.PULL, CASES[case].nbytes)
    socket.connect(ipc_of(address))
    while True:
        yield socket.recv_multipart(copy=False)
