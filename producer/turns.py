"""Owns what a worker does next: leases of its pipelines, the earliest split first; else their streams, in turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from dfserve.dataflow.base import DataFlow
from dfserve.producer.bell import Bell
from dfserve.producer.lessee import Job
from dfserve.producer.maker import Maker
from dfserve.producer.passes import PassCounter, send_passes
from dfserve.producer.sender import Sender
from dfserve.producer.splits import NoItemsFault

log = logging.getLogger("dfserve.producer")

TICK = 1.0  # seconds between looks at whether something is wrong, where no thread says so
LEAST = 0.5  # seconds to hand over what is held, also if what was being made took all of the grace
NOWHERE = -1  # in place of a position

Build = Callable[[], DataFlow]
Note = Callable[[int, int], Callable[[int], object]]  # of a pipeline's number and an epoch: is told positions


class Line:
    """One pipeline of a worker, and its sender.

    Args:
        build: returns the pipeline, always the same; called when it is first wanted.
        sender: the pipeline's own; it shares ``bell``.
        passes: of its stream; None repeats for ever.
        blamed: what of the exceptions is the pipeline's, see `SplitRunner`.

    Attributes:
        finished: the stream's passes were sent.
        counter: of the stream.
        outputs: datapoints in the blocks that were made of leases.
    """

    def __init__(
        self,
        build: Build,
        sender: Sender,
        passes: int | None,
        bell: Bell,
        *,
        blamed: type[BaseException] = Exception,
    ) -> None:
        self.sender = sender
        self.finished = False
        self.counter = PassCounter()
        self.maker = Maker(build, sender.supply, blamed)
        self.outputs = 0
        self._steps = send_passes(build, sender, passes, self.counter, bell, blamed)

    @property
    def datapoints(self) -> int:
        """Datapoints produced so far."""
        return self.counter.datapoints + self.outputs

    @property
    def may_stream(self) -> bool:
        """Whether the stream is wanted and has room."""
        return not self.finished and self.sender.ready

    @property
    def complete(self) -> bool:
        """Whether the stream's passes were sent, and the broker has everything."""
        return self.finished and self.sender.empty

    def stream(self) -> None:
        """Send datapoints until the bell rings or there is no room."""
        self.finished = next(self._steps, self) is self

    def close(self) -> None:
        """End the stream where it is."""
        self._steps.close()


class Abandoned(NoItemsFault):
    """A lease in the making is not wanted any more."""


class Turns:
    """Runs the pipelines of one worker in its main thread.

    Args:
        lines: the pipelines. With several, their streams take turns at a block each.
        bell: that their senders share.
        grace: seconds to hand over what is held, counted from when the worker was told to stop.
        note: for each lease, returns what is told each item's position before it is begun, and `NOWHERE` at the end.
    """

    def __init__(self, lines: Sequence[Line], bell: Bell, grace: float, note: Note = lambda *_: bool) -> None:
        self._lines = lines
        self._bell = bell
        self._grace = grace
        self._note = note
        self._next_lease = self._next_stream = 0  # the lines whose turn it is
        for line in lines:
            line.sender.patient = False
            line.sender.takes_turns = len(lines) > 1

    def run(self) -> bool:
        """Work until all passes were sent and taken, or until told to stop. Returns whether the broker has everything.

        Raises:
            DfserveError: a broker refused us.
            Exception: whatever a pipeline raises in its stream, after its consumers were told.
        """
        try:
            while not self._told_to_stop():
                for line in self._lines:
                    line.sender.raise_error()
                if self._describe() or self._make() or self._stream():
                    continue
                if all(line.complete for line in self._lines):
                    return True
                self._wait()
        finally:
            for line in self._lines:
                line.close()
        return self._hand_over()

    def _told_to_stop(self) -> bool:
        self._bell.rung = False  # first: what rings from here on is found by the next look
        return self._bell.stopped is not None

    def _from(self, first: int) -> Iterator[int]:
        return (place % len(self._lines) for place in range(first, first + len(self._lines)))

    def _describe(self) -> bool:
        for line in self._lines:
            if line.sender.source_wanted:
                line.sender.describe(line.maker.describe(line.sender.limits))
                return True
        return False

    def _make(self) -> bool:
        for number in self._from(self._next_lease):
            job = self._lines[number].sender.take_lease()
            if job is not None:
                self._next_lease = number + 1
                self._make_one(number, job)
                return True
        return False

    def _make_one(self, number: int, job: Job) -> None:
        line, epoch = self._lines[number], job.lease.epoch
        sender, bell = line.sender, self._bell
        note = self._note(number, epoch)

        def at(position: int) -> None:
            if job.void or (bell.stopped is not None and time.monotonic() > bell.stopped + self._grace):
                raise Abandoned
            bell.items += 1
            note(position)

        limits = sender.limits
        assert limits is not None, "a lease comes after the welcome"
        try:
            product = line.maker.make(job.lease, limits, at)
        except Abandoned:
            sender.drop(job)
        else:
            if sender.put_made(job, product.answer, product.frames, product.nbytes):
                line.outputs += product.outputs
        note(NOWHERE)  # not if the process is about to end by something that the item raised

    def _stream(self) -> bool:
        for number in self._from(self._next_stream):
            if self._lines[number].may_stream:
                self._next_stream = number + 1
                self._lines[number].stream()
                return True
        return False

    def _wait(self) -> None:
        started = time.monotonic()
        with self._bell.changed:
            if self._bell.rung or any(line.may_stream for line in self._lines):
                return
            self._bell.changed.wait(TICK)
        seconds = time.monotonic() - started
        for line in self._lines:
            line.sender.waited(seconds if line.sender.stream_wanted and not line.finished else 0.0)

    def _hand_over(self) -> bool:
        assert self._bell.stopped is not None
        deadline = max(self._bell.stopped + self._grace, time.monotonic() + LEAST)
        drained = [line.sender.drain(deadline) for line in self._lines]  # all of them, whether or not the first is
        return all(drained)
