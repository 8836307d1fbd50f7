"""Owns how a worker process begins and ends, whatever it runs: signals, seeds, and the report of what it raised."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

from dfserve.dataflow.afresh import start_afresh
from dfserve.dataflow.parallel.inheritance import keep_from_children
from dfserve.dataflow.parallel.leash import ABANDONED, Leash, Stopped
from dfserve.dataflow.parallel.memory import SharedFile
from dfserve.dataflow.parallel.messages import LAST
from dfserve.dataflow.parallel.outlet import Outlet
from dfserve.dataflow.rng import Place
from dfserve.deathbed import die_with


def work(
    pipe: Connection,
    words: Connection,
    file: SharedFile,
    window: int | None,
    place: Place,
    starter: int | None,
    run: Callable[..., None],
    *args: Any,
) -> None:
    """Be a worker process: call ``run(outlet, leash, *args)``, and tell the parent what it raised.

    Args:
        pipe: to the parent.
        words: from the parent.
        file: the memory to share.
        window: datapoints that may be on their way; None: no bound.
        place: of the process among all workers: what its random numbers come from.
        starter: of this process, to die with (see `dfserve.deathbed`); None: there is the leash only.
        run: a function of a module, so that it can be pickled.
        args: for it.
    """
    if starter is not None:
        die_with(starter, ABANDONED)
    _settle(place)
    keep_from_children(pipe, words)
    leash = Leash(words.fileno())
    outlet = Outlet(pipe, file, leash, window)
    status = 0
    try:
        try:
            run(outlet, leash, *args)
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the pipeline raised, SystemExit too, is the parent's
            outlet.label = LAST
            outlet.failed(error)
    except Stopped:
        pass
    except BaseException:  # noqa: BLE001  # the report itself failed
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(Exception):
            util._exit_function()  # type: ignore[attr-defined]  # what multiprocessing itself calls at a process's end
        # At once: a thread of the pipeline's that does not end must not keep a process which has nothing to do.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _settle(place: Place) -> None:
    # Ctrl-C goes to all processes of a terminal; the parent decides what it means. Its handlers are not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    start_afresh(place)
