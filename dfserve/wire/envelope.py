"""Owns the form in which a message travels to a client: frames that are each a message of their own to libzmq. Pure.

A client's socket drops its queue when its connection breaks (``ZMQ_IMMEDIATE``), so that whatever follows begins with
`Who`. In libzmq up to 4.3.5 that may happen while a multipart message is being read, and then it ends the process:
``Assertion failed: !_more (fq.cpp)``. So clients are sent no multipart messages. An envelope holds what is short. The
frames that are long follow it, and then a seal with the envelope's number. They differ by their size alone, so no bytes
that a frame holds look like an envelope.

A broker that has not noticed yet that a connection is another one goes on in the middle of a message. What lies between
an envelope and its seal is nevertheless of that message only; if any of it was lost, there is too little of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from operator import ne
from typing import Any, NamedTuple

from dfserve.errors import WireError
from dfserve.wire import messages as m

# Bytes from which on a frame travels by itself; an envelope is shorter. Below, copying it once more is cheaper than
# handling it.
LONG = 32 << 10
HEAD = struct.Struct("<5s3xIIII")  # the fields of `Head`
SEAL = struct.Struct("<I")
ITEM = array("I").itemsize  # bytes of a length
GRAIN = 8  # bytes: a short frame begins at a multiple of it, as frames do that libzmq receives one by one


class Head(NamedTuple):
    """What an envelope begins with.

    Attributes:
        header: of the message.
        number: of the envelope.
        long: how many long frames follow it.
        others: how many frames the message has beside its header.
        nbytes: of the lengths of these, and of the short ones among them.
    """

    header: bytes
    number: int
    long: int
    others: int
    nbytes: int


def seal(frames: Sequence[Any], number: int) -> list[Any]:
    """Return what is to be sent, one after the other, for the frames of a message.

    Args:
        frames: its header, its body, and others.
        number: another one for each message to this client, below 2 ** 32.
    """
    header, *rest = frames
    lengths = list(map(len, rest))
    parts: list[Any] = [array("I", lengths).tobytes()]
    for frame, length in zip(rest, lengths, strict=True):
        if length < LONG:
            parts += (bytes(-len(parts[-1]) % GRAIN), frame)
    short = b"".join(parts)
    long = [frame for frame in rest if len(frame) >= LONG]
    if HEAD.size + len(short) < LONG:
        envelope = HEAD.pack(header, number, len(long), len(rest), len(short)) + short
    else:  # many short frames: together they are a long one
        long.insert(0, short.ljust(LONG, b"\0"))
        envelope = HEAD.pack(header, number, len(long), len(rest), len(short))
    return [envelope, *long, SEAL.pack(number)] if long else [envelope]


class Unsealing:
    """Puts together what `seal` took apart, of one connection after another."""

    def __init__(self) -> None:
        self._head: Head | None = None  # of the message that is not complete yet
        self._short = memoryview(b"")  # what its envelope has beside
        self._long: list[Any] = []  # what has followed it

    def put(self, frame: Any) -> list[Any] | None:
        """Take in what has come next. Returns all frames of the message that it completes, if it completes one.

        Args:
            frame: an object with the buffer protocol; the returned frames refer to it.

        Raises:
            WireError: reason ``magic``, ``version`` or ``frames``. What comes next may be read all the same.
        """
        head, length = self._head, len(frame)
        if length >= LONG:
            if head is not None and len(self._long) <= head.long:  # or else it is of a message that was lost
                self._long.append(frame)
            return None
        self._head = None  # whatever is not complete by now never will be
        if length == SEAL.size:
            (number,) = SEAL.unpack(frame)
            whole = head is not None and head.number == number and head.long == len(self._long)
            return self._complete(head) if whole and head is not None else None
        return self._open(memoryview(frame))

    def _open(self, envelope: memoryview) -> list[Any] | None:
        m.check_header(bytes(envelope[: m.HEADER_BYTES]))
        if len(envelope) < HEAD.size:
            raise WireError("frames", f"an envelope of {len(envelope)} bytes")
        head = Head(*HEAD.unpack_from(envelope))
        self._short, self._long = envelope[HEAD.size :], []
        if not head.long:
            return self._complete(head)
        self._head = head
        return None

    def _complete(self, head: Head) -> list[Any]:
        short, long = self._short, self._long
        self._short, self._long = memoryview(b""), []
        if long and not short:
            short = memoryview(long.pop(0))[: head.nbytes]
        return [head.header, *_frames(head, short, long)]


def _frames(head: Head, short: memoryview, long: list[Any]) -> list[Any]:
    """Return the frames after the header, given the lengths of all and the short ones, and the long ones.

    Raises:
        WireError: reason ``frames``: they are others than the envelope says.
    """
    start = head.others * ITEM
    if len(short) != head.nbytes or not head.others or start > head.nbytes:
        raise WireError(
            "frames", f"an envelope of {head.others} frames came with {len(short)} bytes, not {head.nbytes}"
        )
    lengths = array("I", short[:start].tobytes())
    rest = iter(long)
    frames: list[Any] = []
    for length in lengths:
        if length >= LONG:
            frames.append(next(rest, b""))
            continue
        start += -start % GRAIN
        frames.append(short[start : start + length])
        start += length
    if start != head.nbytes or any(rest) or any(map(ne, map(len, frames), lengths)):
        raise WireError("frames", f"{head.others} frames have other lengths than their envelope says")
    return frames
