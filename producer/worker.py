"""Owns what runs in a worker process: copies of the pipelines, served to the broker until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

from dfserve.dataflow.afresh import settle_torch, start_afresh
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.rng import Place, seed_of_run
from dfserve.deathbed import die_with
from dfserve.errors import ConfigError, DfserveError
from dfserve.producer.bell import Bell
from dfserve.producer.board import Board, Counters
from dfserve.producer.sender import Sender
from dfserve.producer.turns import Build, Line, Turns
from dfserve.producer.uplink import Uplink
from dfserve.wire.messages import ProducerHello

log = logging.getLogger("dfserve.producer")

# Exit statuses, of workers and of `dfserve produce`. 1 is left to Python.
DONE, WRONG_USAGE, RAISED, KILLED, NOT_DRAINED = 0, 2, 3, 4, 5

WATCH = 1.0  # seconds between looks at the parent, and between writes of the counters


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        pipelines: each as who serves it, with a session of its own, and what builds it.
        uplink: its way to the broker.
        slot: its number among the workers of this daemon.
        grace: seconds to hand over what it holds once it was told to stop.
    """

    pipelines: Sequence[tuple[ProducerHello, Build]]
    uplink: Uplink
    slot: int
    passes: int | None
    grace: float

    @property
    def name(self) -> str:
        """The worker's name, ``host/slot``."""
        return f"{self.pipelines[0][0].host}/{self.slot}"


def work(task: Task, board: Board, parent: int) -> int:
    """Run in a freshly forked process; returns its exit status."""
    die_with(parent, KILLED)  # on Linux at once; the watch sees it elsewhere, a second later
    _start_afresh(task.name)
    start = board.read(task.slot)
    note = partial(board.note, task.slot)
    bell = Bell()
    with ExitStack() as stack:
        lines = []
        for identity, build in task.pipelines:
            own = replace(identity, pid=os.getpid())
            sender = stack.enter_context(Sender(task.uplink, own, bell))
            lines.append(Line(partial(_built, build), sender, task.passes, bell, blamed=BaseException))
        _listen(bell, lines)
        watch = threading.Thread(target=_watch, args=(parent, task.slot, board, lines, start), daemon=True)
        watch.start()
        try:
            drained = Turns(lines, bell, task.grace, note).run()
        except ConfigError as error:
            log.error("%s", error)
            return WRONG_USAGE
        except DfserveError as error:
            log.error("%s", error)
            return RAISED
        except BaseException:  # noqa: BLE001  # the pipeline's: it was logged, and the consumers were told
            return RAISED
        finally:
            _record(task.slot, board, lines, start)
    if drained and task.passes is not None and not all(line.finished for line in lines):
        done = min(line.counter.passes for line in lines)
        log.error("told to stop after %d of %d passes", done, task.passes)
        return NOT_DRAINED
    if drained:
        return DONE
    held = sum(line.sender.held for line in lines)
    endless = task.passes is None
    level = logging.WARNING if endless else logging.ERROR
    log.log(level, "told to stop: %d blocks were not taken by the broker within %.0f s", held, task.grace)
    return DONE if endless else NOT_DRAINED


def _listen(bell: Bell, lines: Sequence[Line]) -> None:
    """Stop at SIGTERM, which the supervisor blocked before the fork."""

    def stop(_signum: int, _frame: FrameType | None) -> None:
        bell.stop()
        for line in lines:
            line.sender.interrupt()

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _start_afresh(name: str) -> None:
    """Undo what a fork copies and should not. The worker's name, ``host/slot``, makes its random numbers its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    start_afresh(Place(seed_of_run(), (zlib.crc32(name.encode()),)))


def _built(build: Build) -> DataFlow:
    df = build()
    settle_torch()
    return df


def _watch(parent: int, slot: int, board: Board, lines: Sequence[Line], start: Counters) -> None:
    while True:
        time.sleep(WATCH)
        if os.getppid() != parent:
            os._exit(KILLED)
        _record(slot, board, lines, start)


def _record(slot: int, board: Board, lines: Sequence[Line], start: Counters) -> None:
    board.write(
        slot,
        Counters(
            start.datapoints + sum(line.datapoints for line in lines),
            start.nbytes + sum(line.sender.nbytes for line in lines),
            start.blocked_seconds + sum(line.sender.blocked for line in lines),
            start.passes + sum(line.counter.passes for line in lines),
            start.restarts,
        ),
    )
