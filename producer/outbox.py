"""Owns a worker's side of the delivery protocol: numbered blocks, offers, credit, receipts. Pure: no sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfserve.errors import BlockTooLarge
from dfserve.window import Window
from dfserve.wire.messages import (
    Block,
    Credit,
    Fail,
    Finish,
    Message,
    Offer,
    ProducerHello,
    ProducerWelcome,
    Who,
    WorkerBeat,
)

MIB = 1 << 20


@dataclass(frozen=True)
class Item:
    """A numbered message that the broker has not acknowledged."""

    message: Block | Fail | Finish
    frames: Sequence[Any]
    count: int
    nbytes: int


class Outbox:
    """What a worker holds until the broker has it.

    Everything is said again after a reconnect: `hello` starts over from the last receipt, and the broker drops what it
    has seen.

    Args:
        identity: who this worker is; its ``base``, ``broker`` and ``uncertain`` are filled in here.
        window: how much may be held.
    """

    def __init__(self, identity: ProducerHello, window: Window) -> None:
        self._identity = identity
        self._window = window
        self._held: deque[Item] = deque()
        self._datapoints = 0
        self._nbytes = 0
        self._last = 0  # number of the last item put in
        self._acked = 0
        self._offered = 0
        self._granted = 0
        self._sent = 0
        self._base = 0  # what the present broker instance was told to start after
        self._released = 0  # blocks that the present instance saw consumed
        self._broker = b""
        self._limits: ProducerWelcome | None = None
        self.welcomed = False

    @property
    def has_room(self) -> bool:
        """Whether another block may be put in. Not before a broker has said how large it may be."""
        return self._limits is not None and self._window.has_room(len(self._held), self._datapoints, self._nbytes)

    @property
    def empty(self) -> bool:
        """Whether the broker has everything."""
        return not self._held

    @property
    def consumed(self) -> bool:
        """Whether consumers have had everything."""
        return not self._held and self._released >= self._acked - self._base

    @property
    def held(self) -> int:
        """Number of blocks that the broker does not have."""
        return len(self._held)

    @property
    def limits(self) -> ProducerWelcome | None:
        """What the broker said last of its limits; None before it did."""
        return self._limits

    # ------------------------------------------------------------------ filled by the pipeline

    def put_block(self, frames: Sequence[Any], count: int, nbytes: int) -> None:
        """Hold a block of ``count`` datapoints.

        Raises:
            BlockTooLarge: no limit of the broker's admits it; it is not held.
        """
        if self._limits is not None:
            _check_size([len(frame) for frame in frames], nbytes, self._limits)
        self._put(Item(Block(self._last + 1, count), frames, count, nbytes))

    def put_fail(self, fail: Fail) -> None:
        """Hold the news that the pipeline raised; its number is filled in here."""
        self._put(Item(replace(fail, seq=self._last + 1), (), 0, fail.nbytes))

    def put_finish(self) -> None:
        """Hold the clean end of the last pass."""
        self._put(Item(Finish(self._last + 1), (), 0, 0))

    def _put(self, item: Item) -> None:
        self._last += 1
        self._held.append(item)
        self._datapoints += item.count
        self._nbytes += item.nbytes

    # ------------------------------------------------------------------ said to and by the broker

    def receive(self, message: Message) -> list[Message]:
        """Take in what the broker says. Returns the answer to it, if there is one.

        Raises:
            BlockTooLarge: see `welcome`.
        """
        if isinstance(message, Who):
            return [self.hello()]
        if isinstance(message, ProducerWelcome):
            self.welcome(message)
        elif isinstance(message, Credit) and self.welcomed:
            self.credit(message)
        return []

    def beat(self, blocked: float) -> Message:
        """Return a heartbeat: the last offer, or once more who we are, in case that or the welcome was lost."""
        return WorkerBeat(self._offered, self._granted, self._sent, blocked) if self.welcomed else self.hello()

    def hello(self) -> ProducerHello:
        """Return the answer to WHO. Nothing is sent after it until the broker's welcome."""
        self.welcomed = False
        # Also of what was sent and has no receipt: a broker that dies may have handed it on.
        uncertain = max(0, max(self._acked, self._sent) - self._base - self._released)
        return replace(self._identity, base=self._acked + 1, broker=self._broker, uncertain=uncertain)

    def welcome(self, message: ProducerWelcome) -> None:
        """Start over from what the broker has.

        Raises:
            BlockTooLarge: a block made before the broker's limits were known; everything stays held.
        """
        if message.broker != self._broker:
            self._broker, self._base, self._released = message.broker, self._acked, 0
        self._limits = message
        self._acknowledge(message.acked)
        self._offered = self._granted = self._sent = self._acked
        self.welcomed = True
        for item in self._held:
            _check_size(list(map(len, item.frames)), item.nbytes, message)

    def credit(self, message: Credit) -> None:
        """Take receipts and credit in."""
        self._acknowledge(message.acked)
        self._granted = message.granted
        self._released = message.released

    def _acknowledge(self, acked: int) -> None:
        while self._held and self._held[0].message.seq <= acked:
            item = self._held.popleft()
            self._datapoints -= item.count
            self._nbytes -= item.nbytes
        self._acked = max(self._acked, min(acked, self._last))

    def take_outgoing(self) -> list[tuple[Message, Sequence[Any]]]:
        """Return what may be said now: an offer of blocks that are new, then those within the credit.

        In this order, so that the offer is answered while the blocks are on their way. While the broker owes an answer
        to the last offer there is no other.
        """
        if not self.welcomed:
            return []
        out: list[tuple[Message, Sequence[Any]]] = []
        # One offer at a time is without an answer: what is made meanwhile shares the next one.
        fresh = self._from(self._offered + 1, self._last) if self._granted >= self._offered else []
        if fresh:
            out.append((Offer(fresh[0].message.seq, [item.nbytes for item in fresh]), ()))
            self._offered = self._last
        for item in self._from(self._sent + 1, self._granted):
            out.append((item.message, item.frames))
            self._sent = item.message.seq
        return out

    def _from(self, first: int, last: int) -> list[Item]:
        """Return the held items numbered ``first`` to ``last``; the held ones are numbered without a gap."""
        if not self._held or last < first:
            return []
        start = self._held[0].message.seq
        return [self._held[seq - start] for seq in range(max(first, start), last + 1)]


def _check_size(sizes: list[int], nbytes: int, limits: ProducerWelcome) -> None:
    largest = max(sizes, default=0)
    if nbytes > limits.budget:
        raise BlockTooLarge(
            f"block of {nbytes / MIB:.1f} MiB exceeds the broker's budget of {limits.budget / MIB:.1f} MiB; "
            "raise --queue-bytes (queue_bytes=) at the broker or send smaller batches"
        )
    if largest > limits.max_frame:
        raise BlockTooLarge(
            f"block with an array of {largest / MIB:.1f} MiB exceeds max_frame of {limits.max_frame / MIB:.1f} MiB; "
            "raise --max-frame (max_frame=) at the broker or send smaller batches"
        )
