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
# Bytes of a frame below which pyzmq copies it anyway (its ``copy_threshold``), and faster if it is told so.
_COPIED = 64 << 10


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any]) -> None:
    """Send a message without waiting. Large frames are not copied: they must not change until they have left.

    Raises:
        zmq.ZMQError: it cannot be sent now (``zmq.Again``), or to nobody; nothing of it was.
    """
    send = socket.send
    for frame in frames[:-1]:
        send(frame, _MORE, copy=len(frame) < _COPIED)
    send(frames[-1], _LAST, copy=len(frames[-1]) < _COPIED)


def send_singly(socket: zmq.Socket[bytes], connection: bytes, frames: Sequence[Any]) -> None:
    """Send frames, each as a message of its own, to one connection of a ROUTER; for the rest as `send_frames`.

    Raises:
        zmq.ZMQError: as `send_frames`; some of them may have been sent.
    """
    for frame in frames:
        socket.send(connection, _MORE)
        socket.send(frame, _LAST, copy=len(frame) < _COPIED)


def receive_frame(socket: zmq.Socket[bytes]) -> zmq.Frame:
    """Return the next frame, whose bytes are libzmq's own.

    Raises:
        zmq.Again: there is none now.
    """
    return socket.recv(_LAST, copy=False)


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
