"""Owns worker processes that apply a function to datapoints: how tasks reach them and outcomes come back."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from dfserve.dataflow.failures import attach_key, name_of
from dfserve.dataflow.parallel.crew import Crew
from dfserve.dataflow.parallel.gathering import Gathering, UnsendableError
from dfserve.dataflow.parallel.inheritance import keep_from_children
from dfserve.dataflow.parallel.leash import Leash
from dfserve.dataflow.parallel.link import ANY, Link
from dfserve.dataflow.parallel.memory import Reader, SharedFile, Writer
from dfserve.dataflow.parallel.messages import (
    BLOCK,
    FAILED,
    INLINE_BYTES,
    PICKLED,
    Sent,
    extent_bytes,
    packed,
    unpacked,
)
from dfserve.dataflow.parallel.outlet import Outlet
from dfserve.dataflow.parallel.pool import Pool
from dfserve.dataflow.parallel.window import Outcome
from dfserve.wire.blocks import decode_block

CHUNKS_EACH = 4  # per worker in a full buffer: enough that none is idle while the others finish theirs
MOST_TOGETHER = 64  # tasks: beyond that a message costs little beside its tasks


# Tickets and their datapoints, or why these cannot be had; None: the parent is gone.
Arrived = queue.SimpleQueue[tuple[list[int], list[Any] | Exception] | None]


class Tasks:
    """The way to one worker: a pipe, and memory to share.

    Attributes:
        open: tickets without an outcome.
    """

    def __init__(self) -> None:
        self._file = SharedFile()
        self._far, self._pipe = multiprocessing.Pipe(duplex=False)
        keep_from_children(self._pipe)
        self._shared = Writer(self._file)
        self._gathering = Gathering(self._place)
        self.open = 0

    def __enter__(self) -> tuple[Connection, SharedFile]:
        return self._far, self._file

    def __exit__(self, *_exc: object) -> None:
        self._far.close()

    def send(self, tickets: list[int], datapoints: list[Any]) -> list[Outcome]:
        """Send datapoints to be mapped; return an outcome for each that cannot be pickled."""
        refused = []
        for ticket, datapoint in zip(tickets, datapoints, strict=True):
            try:
                self._gathering.add(datapoint, ticket)
                self.open += 1
            except UnsendableError as error:  # noqa: PERF203  # each by itself
                refused.append(Outcome(ticket, error=error.why))
        self._gathering.flush()
        return refused

    def give_back(self, extents: Iterable[int]) -> None:
        """Use extents again."""
        for extent in extents:
            self._shared.extents.give_back(extent)

    def close(self) -> None:
        """Give up this end."""
        self._pipe.close()
        self._file.close()
        # They refer to each other; no garbage collector is to be needed for the memory to go.
        del self._gathering, self._shared

    def _place(self, sent: Sent, buffers: Sequence[bytes | memoryview]) -> None:
        nbytes = extent_bytes(buffers)
        extent = self._shared.extents.take(nbytes) if nbytes >= INLINE_BYTES else None
        if extent is None:
            sent.frames = [*sent.frames, *map(bytes, buffers)]
        else:
            self._shared.put(sent, extent, buffers)
        data = packed(sent)
        with contextlib.suppress(OSError):  # a worker that is gone is noticed where its outcomes are awaited
            self._pipe.send_bytes(data)


class ProcessPool(Pool):
    """``num_proc`` processes that map datapoints; tasks go in chunks to whichever has fewest."""

    def __init__(self, operator: str, num_proc: int, func: Callable[[Any], Any], buffer_size: int) -> None:
        """Start the processes."""
        self._tasks: list[Tasks] = []
        try:
            self._crew = Crew(operator, num_proc, run_tasks, (func,), ways=self._new_way)
        except BaseException:
            self._close_ways()
            raise
        self._of = dict(zip(map(id, self._crew.links), self._tasks, strict=True))
        self._chunk = max(1, min(MOST_TOGETHER, buffer_size // (CHUNKS_EACH * num_proc)))
        self._tickets: list[int] = []
        self._datapoints: list[Any] = []
        self._refused: list[Outcome] = []

    def _new_way(self) -> Tasks:
        self._tasks.append(Tasks())
        return self._tasks[-1]

    def submit(self, ticket: int, datapoint: Any) -> None:
        self._tickets.append(ticket)
        self._datapoints.append(datapoint)
        if len(self._tickets) >= self._chunk:
            self.flush()

    def flush(self) -> None:
        if self._tickets:
            least = min(self._tasks, key=lambda tasks: tasks.open)
            tickets, self._tickets = self._tickets, []
            datapoints, self._datapoints = self._datapoints, []
            self._refused += least.send(tickets, datapoints)

    def collect(self, wait: bool) -> list[Outcome]:
        if self._refused:
            refused, self._refused = self._refused, []
            return refused
        if not wait and not self._crew.poll():
            return []
        while True:
            link, sent = self._crew.receive()
            tasks = self._of[id(link)]
            tasks.give_back(sent.freed)
            tasks.open -= len(sent.tags)
            if sent.tags:
                return self._outcomes(link, sent)
            if sent.kind == FAILED:  # not of a task: the worker itself
                raise link.error(sent)

    def forget(self, before: int) -> None:
        for link in self._crew.links:
            link.want(before)

    def close(self) -> None:
        self._crew.close()
        self._close_ways()

    def _close_ways(self) -> None:
        ways, self._tasks = self._tasks, []
        for tasks in ways:
            tasks.close()

    def _outcomes(self, link: Link, sent: Sent) -> list[Outcome]:
        if sent.kind == FAILED:
            error = link.error(sent)
            return [Outcome(ticket, error=error, trace=error.remote_traceback) for ticket in sent.tags]
        if sent.kind not in (BLOCK, PICKLED):
            return [Outcome(ticket) for ticket in sent.tags]
        link.words.consumed(sent.count)
        try:
            return [Outcome(*pair) for pair in zip(sent.tags, link.datapoints(sent), strict=True)]
        except Exception as error:  # noqa: BLE001  # whatever the user's classes raise when unpickled
            return [Outcome(ticket, error=error) for ticket in sent.tags]


def run_tasks(outlet: Outlet, leash: Leash, func: Callable[[Any], Any], pipe: Connection, file: SharedFile) -> None:
    """Be a worker: map what comes until the parent closes."""
    keep_from_children(pipe)
    arrived: Arrived = queue.SimpleQueue()
    # A thread takes tasks in as they come, so that the parent, which sends and receives in one thread, never waits.
    threading.Thread(
        target=_listen,
        args=(pipe, Reader(file, lambda extent, _nbytes: outlet.freed.append(extent)), arrived),
        daemon=True,
    ).start()
    leash.when_cut(lambda: arrived.put(None))
    while (tasks := arrived.get()) is not None:
        tickets, datapoints = tasks
        del tasks
        if isinstance(datapoints, Exception):
            if not tickets:  # what listens has failed, and nothing more will come
                raise datapoints
            for ticket in tickets:
                outlet.failed(datapoints, tag=ticket)
            continue
        todo = deque(zip(tickets, datapoints, strict=True))
        del datapoints  # the memory goes back as they are mapped, not when the next have come
        while todo:
            _map_one(outlet, leash, func, *todo.popleft())


def _map_one(outlet: Outlet, leash: Leash, func: Callable[[Any], Any], ticket: int, datapoint: Any) -> None:
    if ticket < leash.wanted:
        outlet.nothing(ticket)
        return
    try:
        mapped = func(datapoint)
        if mapped is None:
            outlet.nothing(ticket)
        else:
            outlet.put(mapped, tag=ticket)
    except Exception as error:  # noqa: BLE001  # whatever the user's function raises is told to the parent
        if (name := name_of(datapoint)) is not None:
            attach_key(error, name, 0)
        outlet.failed(error, tag=ticket)


def _listen(pipe: Connection, reader: Reader, arrived: Arrived) -> None:
    try:
        while True:
            sent = unpacked(pipe.recv_bytes())
            arrived.put((list(sent.tags), _datapoints(sent, reader)))
    except (EOFError, OSError):
        return  # the parent is gone: the leash ends this process
    except Exception as error:  # noqa: BLE001  # a thread that dies silently would leave the parent waiting
        arrived.put(([], error))


def _datapoints(sent: Sent, reader: Reader) -> list[Any] | Exception:
    try:
        if sent.kind == PICKLED:
            return [pickle.loads(sent.body)]  # noqa: S301  # our own parent's
        return decode_block(reader.frames(sent), ANY, writable=True)
    except Exception as error:  # noqa: BLE001  # whatever the user's classes raise when unpickled
        return error
