"""Owns a consumer's side of the delivery protocol: what it has, and what it has handed out. Pure: no sockets."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfserve.wire.messages import (
    SESSION_BYTES,
    ConsumerBeat,
    ConsumerHello,
    ConsumerWelcome,
    Deliver,
    DeliverEnd,
    DeliverFailure,
    Done,
    Message,
    Refused,
    Who,
)

Delivery = Deliver | DeliverFailure | DeliverEnd

# A receipt costs a switch of threads here and a turn of the broker, as much as the handing out of its block. So at full
# speed several blocks share one: a few of the common size, and far less than the window that they are part of.
RECEIPT_BYTES = 2 << 20
# Where blocks come seldom, each has one: then the broker knows at once what is free, and what would be in doubt.
RECEIPT_SECONDS = 0.005


@dataclass(frozen=True)
class Arrival:
    """A delivery that was received, and the broker instance whose numbering it follows."""

    broker: bytes
    message: Delivery
    frames: Sequence[Any]


class Inbox:
    """What a consumer has received and not handed out.

    Args:
        identity: who this consumer is; its ``broker``, ``received`` and ``done`` are filled in here.
    """

    def __init__(self, identity: ConsumerHello) -> None:
        self.identity = identity
        self._waiting: deque[Arrival] = deque()
        self._broker = b""
        self._received = 0
        self._owed_bytes = 0
        self._said_at = 0.0  # when the last receipt was given
        self._said = 0
        self.done = 0
        self.welcomed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def widen(self, hwm: int) -> None:
        """Want at least so many datapoints in flight, from the next hello on."""
        self.identity = replace(self.identity, hwm=max(hwm, self.identity.hwm))

    @property
    def broker(self) -> bytes:
        """The broker instance whose numbering is followed; empty before the first welcome."""
        return self._broker

    def hello(self) -> ConsumerHello:
        """Return the answer to WHO. Until the welcome, receipts would follow a numbering that may be over."""
        self.welcomed = False
        self._said = self.done
        return replace(self.identity, broker=self._broker, received=self._received, done=self.done)

    def welcome(self, broker: bytes) -> None:
        """Take a welcome. Another instance counts its deliveries anew; what the old one sent is still good."""
        if broker != self._broker:
            self._broker, self._received, self.done = broker, 0, 0
        self.welcomed = True

    def expire(self) -> None:
        """The broker gave to others what this consumer had not opened: drop it and come back as a new session."""
        self._waiting = deque(arrival for arrival in self._waiting if arrival.broker != self._broker)
        self.identity = replace(self.identity, session=secrets.token_bytes(SESSION_BYTES))
        self._broker, self._received, self.done = b"", 0, 0
        self.welcomed = False

    def put(self, message: Delivery, frames: Sequence[Any]) -> bool:
        """Take a delivery in; one that is there already is dropped. Returns False if one before it is missing.

        Before the welcome it is dropped too: it is unknown whose numbering it follows, and the welcome repeats it.
        """
        if not self.welcomed:
            return True
        if message.delivery > self._received + 1:
            return False
        if message.delivery == self._received + 1:
            waiting = deque([*self._waiting, Arrival(self._broker, message, frames)])
            self._waiting, self._received = waiting, message.delivery  # both or, if an interrupt comes, neither
        return True

    def receive(self, message: Message, frames: Sequence[Any]) -> list[Message]:
        """Take in what the broker says. The answer is a hello when it asks, or when something is missing."""
        lost = False
        if isinstance(message, (Deliver, DeliverFailure, DeliverEnd)):
            lost = not self.put(message, frames)
        elif isinstance(message, ConsumerBeat):
            lost = message.sent > self._received
        elif isinstance(message, ConsumerWelcome):
            self.welcome(message.broker)
        elif isinstance(message, Refused) and message.kind == "expired":
            self.expire()
            lost = True
        return [self.hello()] if lost or isinstance(message, Who) else []

    def first(self) -> Arrival | None:
        """Return the oldest delivery, or None. It stays until it is handed out, since an interrupt may come before."""
        return self._waiting[0] if self._waiting else None

    def handed_out(self, arrival: Arrival) -> None:
        """Note that all of a delivery was handed out; one of an earlier broker's is nobody's business any more."""
        if arrival.broker == self._broker:
            self.done = arrival.message.delivery
            self._owed_bytes += sum(map(len, arrival.frames))
        if arrival is self.first():
            self._waiting.popleft()

    @property
    def owes(self) -> bool:
        """Whether a broker that listens has not been told how far we are."""
        return self.welcomed and self._said != self.done

    def receipt_due(self, now: float) -> bool:
        """Whether a receipt is worth its cost already; one that is owed is to be given before a wait at the latest."""
        return self.owes and (self._owed_bytes >= RECEIPT_BYTES or now - self._said_at >= RECEIPT_SECONDS)

    def receipt(self, waited: float, now: float) -> list[Message]:
        """Return what tells the broker how far we are, if it is listening. ``now``: monotonic seconds."""
        if not self.welcomed:
            return []
        self._said, self._said_at, self._owed_bytes = self.done, now, 0
        return [Done(self.done, waited)]

    def beat(self, waited: float, now: float) -> Message:
        """Return a heartbeat: how far we are, or once more who we are, in case that or the welcome was lost."""
        return self.receipt(waited, now)[0] if self.welcomed else self.hello()
