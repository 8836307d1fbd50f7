"""Owns what a worker process hears from its parent, and its end when the parent is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from dfserve.dataflow.parallel.messages import CONSUMED, FREED, WORD_BYTES, words

GRACE = 1.0  # seconds between the parent's end and the worker's, so that the pipeline's own clean-up may run
ABANDONED = 70  # exit status of a worker whose parent is gone: nobody is left to read it


class Stopped(BaseException):
    """The parent closed this worker or is gone. No Exception, so that no pipeline takes it for a failure of its own."""


class Leash:
    """Reads the parent's words in a thread; when their pipe ends, the process ends, whatever it is doing.

    Only the parent holds the other end, so that the pipe ends with the parent however that dies.

    Attributes:
        consumed: datapoints that the parent has handed out.
        wanted: the highest number of a pass that the parent asked for.
    """

    def __init__(self, fd: int) -> None:
        """Begin to listen to the pipe ``fd``."""
        self._fd = fd
        self._changed = threading.Condition()
        self._freed: list[int] = []
        self._cut = False
        self._calls: list[Callable[[], object]] = []
        self.consumed = 0
        self.wanted = 0
        threading.Thread(target=self._listen, name="dfserve-leash", daemon=True).start()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready()``, which looks at what the parent said.

        The wait ends at the latest with the parent.

        Raises:
            Stopped: the parent is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._cut or ready())
            if self._cut:
                raise Stopped

    def when_cut(self, call: Callable[[], object]) -> None:
        """Have ``call()`` called, in some thread, when the parent is gone: to wake who waits for something else."""
        with self._changed:
            if not self._cut:
                self._calls.append(call)
                return
        call()

    def freed(self) -> list[int]:
        """Return the extents that the parent gave back since the last call."""
        with self._changed:
            found, self._freed = self._freed, []
        return found

    @property
    def any_freed(self) -> bool:
        """Whether ``freed()`` would return something."""
        return bool(self._freed)

    def _listen(self) -> None:
        while data := os.read(self._fd, 512 * WORD_BYTES):
            with self._changed:
                for kind, value in words(data):
                    if kind == CONSUMED:
                        self.consumed = max(self.consumed, value)
                    elif kind == FREED:
                        self._freed.append(value)
                    else:
                        self.wanted = max(self.wanted, value)
                self._changed.notify_all()
        with self._changed:
            self._cut = True
            self._changed.notify_all()
        for call in self._calls:
            call()
        time.sleep(GRACE)
        os._exit(ABANDONED)
