"""Owns the stream between a source and a pool: reading ahead, taking what is finished, and what ends it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from dfserve.dataflow.parallel.pool import Pool
from dfserve.dataflow.parallel.window import Finished, Window
from dfserve.errors import DatapointError

# Seconds. While the source is slow, see this often whether something is finished that could be yielded meanwhile.
_LOOK_EVERY = 0.02


class Flow:
    """The state of a parallel map between one ``reset_state()`` and the next, in the process that called it.

    Attributes:
        pid: of that process.
        pool: the workers; None until they are started.
        error: what ended the pass over the source; to be raised once all that was read before it is yielded.
        sound: the books are right. False in the middle of a step, where an interrupt may come between any two lines.
    """

    def __init__(self, ds: Any, window: Window, *, endless: bool) -> None:
        """Read ``ds``: one pass after each ``abandon()``, or passes without end if ``endless``."""
        self.pid = os.getpid()
        self.pool: Pool | None = None
        self.error: Exception | None = None
        self.sound = True
        self._ds = ds
        self._window = window
        self._endless = endless
        self._source: Iterator[Any] | None = None
        self._reading = True  # the source may have more

    def begin(self) -> None:
        """Go on reading after an error that was raised, or begin a pass, unless the stream is endless."""
        if not self._endless:
            self.abandon()
        self._reading = self.error is None

    def abandon(self) -> None:
        """Give up everything that is in flight, and stand before a pass."""
        self._source = self.error = None
        self._window.abandon()
        if self.pool is not None:
            self.pool.forget(self._window.wanted_from)

    def step(self, pool: Pool) -> Finished | None:
        """Return the next outcome; None once everything is taken that was read before the source's end or error.

        Raises:
            WorkerLost: the pool is broken.
        """
        window = self._window
        while True:
            if self._reading:
                self._fill(pool)
            if window.ready:
                finished = window.take()
                if window.barren:
                    self._refuse_endless_nothing()
                return finished
            if window.empty and not self._reading:
                return None
            self._collect(pool, wait=True)

    def raise_deferred(self) -> None:
        """Raise what ended the pass over the source, if it was not its end."""
        if self.error is not None:
            error, self.error = self.error, None
            self._window.barren = False
            raise error

    def _fill(self, pool: Pool) -> None:
        """Submit until the window is full; while the source is slow, until something can be yielded."""
        window = self._window
        look = time.monotonic() + _LOOK_EVERY
        while self._reading and window.has_room:
            try:
                if self._source is None:
                    self._source = iter(self._ds)
                datapoint = next(self._source)
            except StopIteration:
                self._end_source_pass()
                self._reading = self._endless
                self._refuse_endless_nothing()
            except Exception as error:  # noqa: BLE001  # whatever the source raises
                self._end_source_pass(error)
            else:
                pool.submit(window.submit(datapoint), datapoint)
            if time.monotonic() > look:
                self._collect(pool, wait=False)
                if window.ready:
                    return
                look = time.monotonic() + _LOOK_EVERY

    def _collect(self, pool: Pool, *, wait: bool) -> None:
        pool.flush()
        for outcome in pool.collect(wait):
            self._window.finish(outcome)

    def _end_source_pass(self, error: Exception | None = None) -> None:
        self._source = None
        self._window.end_source_pass()
        if error is not None:
            self._reading = False
            self.error = error

    def _refuse_endless_nothing(self) -> None:
        if not self._endless or self.error is not None or not self._window.barren:
            return
        self._end_source_pass(
            DatapointError(
                f"a whole pass over {type(self._ds).__name__} yields nothing, so repeating it for ever would hang: is"
                " the source empty, does the map drop everything, or is it a generator that runs once? For single"
                " passes, set strict=True"
            )
        )
