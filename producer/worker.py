"""Owns what runs in a worker process: one copy of the pipeline, sent to the broker until told to stop."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import zlib
from dataclasses import dataclass, replace
from types import FrameType

from dfserve.dataflow.afresh import start_afresh
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.rng import Place, seed_of_run
from dfserve.errors import ConfigError, DfserveError
from dfserve.producer.board import Board, Counters
from dfserve.producer.passes import PassCounter, run_passes
from dfserve.producer.sender import Sender
from dfserve.wire.messages import ProducerHello

log = logging.getLogger("dfserve.producer")

# Exit statuses, of workers and of `dfserve produce`. 1 is left to Python.
DONE, WRONG_USAGE, RAISED, KILLED, NOT_DRAINED = 0, 2, 3, 4, 5

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
WATCH = 1.0  # seconds between looks at the parent, and between writes of the counters


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        slot: its number among the workers of this daemon.
        grace: seconds to hand over what it holds once it was told to stop.
    """

    df: DataFlow
    address: str
    identity: ProducerHello
    slot: int
    passes: int | None
    hwm: int
    grace: float


def work(task: Task, board: Board, parent: int) -> int:
    """Run in a freshly forked process; returns its exit status."""
    _die_with(parent)
    _start_afresh(f"{task.identity.host}/{task.slot}")
    counter = PassCounter()
    start = board.read(task.slot)
    stopped: list[int] = []
    with Sender(task.address, replace(task.identity, pid=os.getpid()), task.hwm) as sender:

        def stop(signum: int, _frame: FrameType | None) -> None:
            stopped.append(signum)
            sender.interrupt()

        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the supervisor blocked it before the fork
        watch = threading.Thread(target=_watch, args=(parent, task.slot, board, counter, sender, start), daemon=True)
        watch.start()
        try:
            run_passes(task.df, sender, task.passes, lambda: bool(stopped), counter)
            drained = _drain(sender, stopped, task.grace)
        except ConfigError as error:
            log.error("%s", error)
            return WRONG_USAGE
        except DfserveError as error:
            log.error("%s", error)
            return RAISED
        except Exception:  # noqa: BLE001  # the pipeline's: run_passes has logged it and told the consumers
            return RAISED
        finally:
            _record(task.slot, board, counter, sender, start)
    if drained:
        return DONE
    log.error("told to stop: %d blocks were not taken by the broker within %.0f s", sender.held, task.grace)
    return DONE if task.passes is None else NOT_DRAINED


def _drain(sender: Sender, stopped: list[int], grace: float) -> bool:
    """Hand over what is held: without a deadline after the last pass, within the grace once told to stop."""
    while not stopped:
        if sender.drain(time.monotonic() + WATCH):
            return True
    return sender.drain(time.monotonic() + grace)


def _die_with(parent: int) -> None:
    """Ask Linux to kill us when the supervisor dies; the watch does it elsewhere, a second later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we had asked
        os._exit(KILLED)


def _start_afresh(name: str) -> None:
    """Undo what a fork copies and should not. The worker's name, ``host/slot``, makes its random numbers its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    start_afresh(Place(seed_of_run(), (zlib.crc32(name.encode()),)))


def _watch(parent: int, slot: int, board: Board, counter: PassCounter, sender: Sender, start: Counters) -> None:
    while True:
        time.sleep(WATCH)
        if os.getppid() != parent:
            os._exit(KILLED)
        _record(slot, board, counter, sender, start)


def _record(slot: int, board: Board, counter: PassCounter, sender: Sender, start: Counters) -> None:
    board.write(
        slot,
        Counters(
            start.datapoints + counter.datapoints,
            start.nbytes + sender.nbytes,
            start.blocked_seconds + sender.blocked,
            start.passes + counter.passes,
            start.restarts,
        ),
    )
