"""Owns how datapoints become messages between processes: large ones alone, small ones together, odd ones as pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfserve.dataflow.parallel.messages import BLOCK, PICKLED, Sent
from dfserve.errors import EncodeError
from dfserve.wire.blocks import BlockBuilder
from dfserve.wire.plain_block import lend_datapoint

LARGE = 64 << 10  # bytes of arrays: such a datapoint travels alone, copied once, straight into the shared memory
BLOCK_BYTES = 128 << 10  # smaller ones travel together: so many that a message costs little beside its copy

Place = Callable[[Sent, Sequence[bytes | memoryview]], None]


class UnsendableError(Exception):
    """A datapoint that no message takes.

    Attributes:
        why: what was raised when it was pickled.
    """

    def __init__(self, why: Exception) -> None:
        super().__init__(str(type(why)))
        self.why = why


class Gathering:
    """Datapoints on their way into messages, in order.

    A datapoint that the wire's codec refuses, such as an object of the user's own class, goes as a pickle: the pipe
    leads from a process to its own parent or child, and nobody else can write to it.
    """

    def __init__(self, place: Place) -> None:
        """Call ``place(message, buffers)`` for each message: it puts the buffers somewhere, and sends the message.

        The buffers may be memory of the datapoint's own, and are not to be used after ``place`` has returned.
        """
        self._place = place
        self._builder = BlockBuilder(max_bytes=BLOCK_BYTES)
        self._lender = BlockBuilder(lend=True)
        self._tags: list[int] = []

    @property
    def count(self) -> int:
        """Datapoints that wait for others."""
        return self._builder.count

    @property
    def full(self) -> bool:
        """Whether those are worth a message."""
        return self._builder.full

    def add(self, datapoint: Any, tag: int | None) -> None:
        """Take a datapoint in; its arrays may be written to afterwards.

        Raises:
            UnsendableError: it cannot even be pickled. Everything else is as before.
        """
        if _array_bytes(datapoint) >= LARGE:
            self.flush()
            if (lent := lend_datapoint(datapoint)) is not None:
                body, buffers = lent
                self._place(Sent(BLOCK, tags=[] if tag is None else [tag], count=1, frames=[body]), buffers)
                return
            if self._added(self._lender, datapoint, tag):
                self._close(self._lender)
                return
        elif self._added(self._builder, datapoint, tag):
            return
        try:
            body = pickle.dumps(datapoint, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise UnsendableError(error) from error
        self.flush()
        self._place(Sent(PICKLED, tags=[] if tag is None else [tag], count=1, body=body), ())

    def flush(self) -> None:
        """Make a message of what waits."""
        if self._builder.count:
            self._close(self._builder)

    def discard(self) -> None:
        """Forget what waits."""
        if self._builder.count:
            self._builder.close()
            self._tags = []

    def _added(self, builder: BlockBuilder, datapoint: Any, tag: int | None) -> bool:
        try:
            if not builder.add(datapoint):
                self._close(builder)
                builder.add(datapoint)
        except EncodeError:
            return False
        if tag is not None:
            self._tags.append(tag)
        return True

    def _close(self, builder: BlockBuilder) -> None:
        block = builder.close()
        tags, self._tags = self._tags, []
        body, *buffers = block.frames
        self._place(Sent(BLOCK, tags=tags, count=block.count, frames=[bytes(body)]), buffers)


def _array_bytes(datapoint: Any) -> int:
    if not isinstance(datapoint, (list, tuple, dict)):
        return 0
    values = datapoint.values() if isinstance(datapoint, dict) else datapoint
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
