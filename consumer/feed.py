"""Owns one broker's part in a stream: what came from it, what it is told, and whether it is heard at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from dfserve.consumer.inbox import Arrival, Inbox
from dfserve.consumer.session import Session, introduced
from dfserve.consumer.waiting import missing
from dfserve.errors import ConfigError, WireError
from dfserve.wire import messages as m

# Heartbeats to a broker, at least a second apart, since it was heard last. It says something every second itself.
SILENT = 3


class Feed:
    """What a consumer has from one broker. It counts by itself: another broker's numbers are no business of this one.

    Args:
        address: of the broker, for messages.
        identity: what this consumer wants there.

    Attributes:
        session: the connection; None while there is none.
        unanswered: heartbeats since the broker was heard last.
        errors: messages that could not be read.
    """

    def __init__(self, address: str, identity: m.ConsumerHello) -> None:
        self.address = address
        self.session: Session | None = None
        self._said: m.ConsumerBeat | None = None
        self.unanswered = 0
        self.errors = 0
        self._inbox = Inbox(identity)
        self._min_producers = identity.min_producers

    def widen(self, hwm: int) -> None:
        """Want at least so many datapoints in flight, from the next hello on."""
        self._inbox.widen(hwm)

    def join(self, session: Session) -> None:
        """Come by this session, as a consumer of this process: of several brokers, a consumer of its own for each.

        Two addresses may turn out to be one broker's, which must tell them apart.
        """
        if self._inbox.identity.pid != os.getpid():  # it was never connected, or what was is left to the parent
            self._inbox = Inbox(introduced(self._inbox.identity))
        self.session = session

    @property
    def welcomed(self) -> bool:
        """Whether the broker has taken this consumer in."""
        return self._inbox.welcomed

    @property
    def broker(self) -> bytes:
        """Which run of which broker it is; empty until the first welcome."""
        return self._inbox.broker

    @property
    def waiting(self) -> int:
        """Deliveries that were received and not handed out."""
        return len(self._inbox)

    # ------------------------------------------------------------------ in

    def first(self) -> Arrival | None:
        """Return the oldest delivery that is not handed out, or None if nothing is here; never waits."""
        arrival = self._inbox.first()
        if arrival is None:
            self.receive()
            arrival = self._inbox.first()
        return arrival

    def receive(self, *, everything: bool = False) -> None:
        """Take messages in until there is a delivery or none is left; the rest waits in libzmq's queue.

        Args:
            everything: go on after a delivery. The broker bounds what is under way, so this is bounded too.

        Raises:
            ConfigError, WireError: the broker refused this consumer.
        """
        session = self.session
        if session is None or (self._inbox and not everything):
            return
        while session.receive(partial(self._handle, session), self._note_bad):
            if self._inbox and not everything:
                return

    def _note_bad(self) -> None:
        self.errors += 1

    def _handle(self, session: Session, message: m.Message, frames: Sequence[Any]) -> None:
        self.unanswered = 0
        if isinstance(message, m.ConsumerBeat):
            self._said = message
        if isinstance(message, m.Refused) and message.kind != "expired":
            text = f"the broker at {self.address} refused this consumer: {message.text}"
            raise ConfigError(text) if message.kind == "config" else WireError(message.kind, text)
        for answer in self._inbox.receive(message, frames):
            session.connection.send(answer)

    # ------------------------------------------------------------------ out

    def _send(self, session: Session | None, messages: Iterable[m.Message]) -> None:
        if session is not None:
            for message in messages:
                session.send(message)

    def handed_out(self, arrival: Arrival) -> None:
        """Note that all of a delivery was handed out."""
        self._inbox.handed_out(arrival)

    @property
    def owes(self) -> bool:
        """Whether the broker has not been told how far we are."""
        return self._inbox.owes

    def give_receipt(self, waited: float, now: float, *, owed: bool = False) -> None:
        """Tell the broker how far we are, if that is due.

        Args:
            waited: seconds, the trainer in all.
            now: monotonic seconds.
            owed: if it is owed, due or not.
        """
        if self._inbox.receipt_due(now) or (owed and self._inbox.owes):
            self._send(self.session, self._inbox.receipt(waited, now))

    def beat(self, waited: float, now: float) -> None:
        """Send a heartbeat; arguments as for `give_receipt`."""
        self.unanswered += 1
        self._send(self.session, [self._inbox.beat(waited, now)])

    def say_goodbye(self, opened: Arrival | None, left: int) -> None:
        """Give back what was not handed out.

        Args:
            opened: the delivery that is being handed out, if it is this broker's.
            left: how many of its datapoints were not handed out yet.
        """
        begun = 0
        if opened is not None and left == 0:
            self._inbox.handed_out(opened)
        elif opened is not None and isinstance(opened.message, m.Deliver):
            begun = opened.message.count - opened.message.skip - left
        self._send(self.session, [m.Bye(self._inbox.done, begun)])

    def close(self) -> None:
        """Forget the session, which is closed by whoever closes it, and what was received."""
        self.session = None
        self.unanswered = 0
        self._inbox.expire()

    # ------------------------------------------------------------------ who is missing

    @property
    def said(self) -> m.ConsumerBeat | None:
        """What the broker said last of its producers and its queue; None if it is not heard."""
        return None if self.unanswered >= SILENT else self._said

    def missing(self, waited: float) -> str:
        """Say why nothing came from here for so many seconds."""
        return missing(self.said, self.address, waited, self._min_producers)
