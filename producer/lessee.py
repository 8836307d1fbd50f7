"""Owns a worker's side of leases: those that wait, the one in the making, what was made and is not taken. Pure.

Everything that the broker has not taken is said again after a reconnect. It drops what it has seen, and what nobody
waits for any more; so nothing here need be certain of what has arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dfserve.wire.epoch_messages import (
    Describe,
    Dropped,
    Lease,
    LeaseBeat,
    Made,
    MadeNothing,
    NotMade,
    Revoke,
    Source,
    Taken,
)
from dfserve.wire.messages import Message

Answer = Made | MadeNothing | NotMade


@dataclass(eq=False)
class Job:
    """A lease, and what has become of it.

    Attributes:
        begun: it is in the making, or made.
        void: nobody wants it any more; whoever makes it may stop.
        answer: what was made of it.
        frames: of the block, if it is one.
        said: the answer was sent, over the present connection.
    """

    lease: Lease
    begun: bool = False
    void: bool = False
    answer: Answer | None = None
    frames: Sequence[Any] = field(default_factory=tuple)
    said: bool = False


class Lessee:
    """The leases of one pipeline in one worker.

    Attributes:
        items: that were begun so far: it tells the broker that a worker which is slow is alive.
    """

    def __init__(self) -> None:
        self.items = 0
        self._asked = False  # for the source, and has not been told
        self._jobs: dict[int, Job] = {}  # by number of the lease
        self._broker = b""
        self._in_epochs = False  # this broker instance has asked for something
        self._source: Source | None = None
        self._closed = False

    @property
    def empty(self) -> bool:
        """Whether no lease is held."""
        return not self._jobs

    @property
    def held(self) -> int:
        """Number of leases held."""
        return len(self._jobs)

    @property
    def asks(self) -> bool:
        """Whether the broker wants to know the pipeline's source, which `describe` was not told yet."""
        return self._asked and self._source is None

    @property
    def waits(self) -> bool:
        """Whether there is something to begin."""
        return self.asks or any(not job.begun for job in self._jobs.values())

    # ------------------------------------------------------------------ said by the broker

    def receive(self, message: Message) -> list[Message]:
        """Take in what the broker says. Returns the answers that can be given at once."""
        if isinstance(message, Describe):
            return self._describe()
        if isinstance(message, Lease):
            return self._lease(message)
        if isinstance(message, Revoke):
            return self._revoke(message.leases)
        if isinstance(message, Taken):
            for number in message.leases:
                self._forget(number)
        return []

    def welcome(self, broker: bytes) -> None:
        """Start over with a connection: all answers are to be said again, or to another instance, which wants none."""
        if broker != self._broker:
            self._broker = broker
            self._in_epochs = self._asked = False
            for number in list(self._jobs):
                self._forget(number)
        for job in self._jobs.values():
            job.said = False

    def _describe(self) -> list[Message]:
        self._in_epochs = True
        if self._source is not None:
            return [self._source]
        self._asked = True
        return []

    def _lease(self, lease: Lease) -> list[Message]:
        self._in_epochs = True
        for number in lease.taken:
            self._forget(number)
        if self._closed:
            return [Dropped([lease.lease])]
        for number, job in list(self._jobs.items()):
            if job.lease.generation != lease.generation:
                self._forget(number)
        known = self._jobs.get(lease.lease)
        if known is not None:
            known.said = False  # the broker does not know what came of it
        else:
            self._jobs[lease.lease] = Job(lease)
        return []

    def _revoke(self, numbers: Sequence[int]) -> list[Message]:
        dropped = []
        for number in numbers:
            job = self._jobs.get(number)
            if job is None or not job.said:
                self._forget(number)
                dropped.append(number)
        return [Dropped(dropped)] if dropped else []

    def _forget(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            job.void = True

    # ------------------------------------------------------------------ done by the worker

    def describe(self, source: Source) -> None:
        """Note the answer to the broker's question, which is said with the next messages and whenever it asks."""
        self._source = source

    def take(self) -> Job | None:
        """Return the earliest lease that is not begun, for it to be made now; None if there is none."""
        waiting = [job for job in self._jobs.values() if not job.begun]
        if not waiting:
            return None
        job = min(waiting, key=lambda job: (job.lease.epoch, job.lease.split))
        job.begun = True
        return job

    def put(self, job: Job, answer: Answer, frames: Sequence[Any] = ()) -> bool:
        """Hold what was made of a lease until the broker has taken it. False: it is void, and is not held."""
        if job.void:
            return False
        job.answer, job.frames = answer, frames
        return True

    def drop(self, job: Job) -> list[Message]:
        """Give up a lease that was begun; returns what is to be said of it."""
        if job.void:
            return []
        self._forget(job.lease.lease)
        return [Dropped([job.lease.lease])]

    def abandon(self) -> None:
        """Let go of everything: nobody is there to take it, and whoever comes leases it to others."""
        for number in list(self._jobs):
            self._forget(number)

    def close(self) -> list[Message]:
        """Drop what is not begun, and every lease that comes from now on; returns what is to be said."""
        self._closed = True
        numbers = [number for number, job in self._jobs.items() if not job.begun]
        for number in numbers:
            self._forget(number)
        return [Dropped(numbers)] if numbers else []

    # ------------------------------------------------------------------ said to the broker

    def take_outgoing(self) -> list[tuple[Message, Sequence[Any]]]:
        """Return what is to be said now, over a connection that had its welcome."""
        out: list[tuple[Message, Sequence[Any]]] = []
        if self._asked and self._source is not None:
            self._asked = False
            out.append((self._source, ()))
        for job in self._jobs.values():
            if job.answer is not None and not job.said:
                job.said = True
                out.append((job.answer, job.frames))
        return out

    def beat(self) -> LeaseBeat | None:
        """Return a heartbeat; None if this broker instance has not asked for anything yet."""
        return LeaseBeat(list(self._jobs), self.items) if self._in_epochs else None
