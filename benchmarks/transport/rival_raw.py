"""Owns the reference: bare pyzmq PUSH/PULL of the datapoint's arrays as bytes, which nobody decodes.

What any transport over this library could at most reach with one message for each datapoint, and without receipts,
credit or a broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import zmq

from benchmarks.transport.cases import Source

HWM = 50  # messages: the default of both others


def send(source: Source, address: str) -> None:
    """Send for ever: one message with a frame for each array, without a copy."""
    socket = zmq.Context().socket(zmq.PUSH)
    socket.set_hwm(HWM)
    socket.connect(address)
    while True:
        for datapoint in source:
            frames: list[Any] = [part for part in datapoint if isinstance(part, np.ndarray)]
            socket.send_multipart(frames, copy=False)


def receive(address: str) -> Iterator[Any]:
    """Yield messages for ever."""
    socket = zmq.Context().socket(zmq.PULL)
    socket.set_hwm(HWM)
    socket.bind(address)
    while True:
        yield socket.recv_multipart(copy=False)
