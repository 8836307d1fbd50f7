"""Owns how a worker's one thread that computes hears of what came in through the threads that hold its sockets."""

from __future__ import annotations

import threading
import time


class Bell:
    """Shared by the senders of one worker.

    Attributes:
        changed: guards what the senders' two threads share; notified whenever a broker said something.
        rung: there may be something to do that is more urgent than the stream. Looked at between two datapoints.
        items: of leases that were begun so far, of any pipeline: it tells the broker that a slow worker is alive.
        stopped: the monotonic time at which the worker was told to stop; None until then.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.rung = False
        self.items = 0
        self.stopped: float | None = None

    def ring(self) -> None:
        """Interrupt the stream; the caller holds ``changed``."""
        self.rung = True
        self.changed.notify_all()

    def stop(self) -> None:
        """Tell the worker to stop. May be called by a signal handler, so it takes no lock: see `Sender.interrupt`."""
        if self.stopped is None:
            self.stopped = time.monotonic()
        self.rung = True
