"""Owns the limit of loopback TCP: one socket, received into one buffer, again and again.

Small datapoints travel in blocks of about 1 MiB which are made once; the consumer makes a view for each datapoint.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.transport.cases import CASES, Source

BLOCK = 1 << 20  # bytes, about
RETRY = 0.05  # seconds until the consumer listens


def block_of(source: Source) -> tuple[list[Any], int]:
    """Return the arrays of one datapoint, and how many datapoints make a block."""
    arrays = [part for part in next(iter(source)) if isinstance(part, np.ndarray)]
    return arrays, max(1, BLOCK // sum(part.nbytes for part in arrays))


def send(source: Source, address: str) -> None:
    """Send for ever."""
    arrays, count = block_of(source)
    block = b"".join(part.tobytes() for part in arrays) * count
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    while True:
        try:
            connection = socket.create_connection((host, int(port)))
            break
        except ConnectionRefusedError:
            time.sleep(RETRY)
    while True:
        connection.sendall(block)


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield views of the one buffer for ever."""
    _, count = block_of(Source(CASES[case].make()))
    nbytes = CASES[case].nbytes
    buffer = np.empty(nbytes * count, np.uint8)
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_server((host, int(port))) as server:
        connection, _ = server.accept()
    while True:
        got, view = 0, memoryview(buffer)
        while got < len(view):
            received = connection.recv_into(view[got:])
            if not received:
                raise ConnectionError("the sender ended")
            got += received
        for first in range(0, len(view), nbytes):
            yield view[first : first + nbytes]
