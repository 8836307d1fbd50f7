"""Owns the reference: bare pyzmq PUSH/PULL of the datapoint's arrays as bytes, which nobody decodes, over tcp.

What any transport over this library could at most reach in one hop with one message for each datapoint, and without
receipts, credit or a broker. Both processes keep large blocks in malloc's heap, as dfserve's broker and workers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import zmq

from benchmarks.transport.cases import CASES, Source
from dfserve.memory import keep_large_blocks

AHEAD = 64 << 20  # bytes in each queue: as much as dfserve has in flight to a consumer
LEAST = 4  # messages


def opened(kind: int, nbytes: int, *, keeps: bool = True) -> Any:
    """Return a socket whose queue holds some 64 MiB; in messages, as libzmq counts.

    ``keeps``: large blocks stay in this process's heap; else malloc does as it does by default.
    """
    if keeps:
        keep_large_blocks()
    socket = zmq.Context().socket(kind)
    socket.set_hwm(max(LEAST, AHEAD // nbytes))
    return socket


def send(source: Source, address: str, *, keeps: bool = True) -> None:
    """Send for ever: one message with a frame for each array, without a copy."""
    arrays = [part for part in next(iter(source)) if isinstance(part, np.ndarray)]
    socket = opened(zmq.PUSH, sum(part.nbytes for part in arrays), keeps=keeps)
    socket.connect(address)
    while True:
        for datapoint in source:
            frames: list[Any] = [part for part in datapoint if isinstance(part, np.ndarray)]
            socket.send_multipart(frames, copy=False)


def receive(address: str, case: str, *, keeps: bool = True) -> Iterator[Any]:
    """Yield messages for ever."""
    socket = opened(zmq.PULL, CASES[case].nbytes, keeps=keeps)
    socket.bind(address)
    while True:
        yield socket.recv_multipart(copy=False)
