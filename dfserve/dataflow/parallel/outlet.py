"""Owns what a worker process sends: datapoints in shared memory or through its pipe, no more than it has credit for."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from dfserve.dataflow.failures import key_of, text_of
from dfserve.dataflow.parallel.gathering import Gathering, UnsendableError
from dfserve.dataflow.parallel.leash import Leash, Stopped
from dfserve.dataflow.parallel.memory import SharedFile, Writer
from dfserve.dataflow.parallel.messages import END, FAILED, INLINE_BYTES, NOTHING, WAITING, Sent, extent_bytes, packed

LINGER = 0.002  # seconds that a small datapoint may wait for others


class Outlet:
    """The sending end in a worker. One thread uses it; a thread of its own sends what lingers.

    Attributes:
        label: the pass that what is put belongs to.
        freed: extents of the tasks' memory that are to be given back with the next message.
    """

    def __init__(self, pipe: Connection, file: SharedFile, leash: Leash, window: int | None) -> None:
        """Send to ``pipe``; at most ``window`` datapoints ahead of what the parent handed out (None: no bound here)."""
        self._pipe = pipe
        self._leash = leash
        self._window = window
        self.label = 0
        self.freed: deque[int] = deque()
        self._gathering = Gathering(self._place)
        self._sent = 0  # datapoints
        self._sent_at = time.monotonic()
        self._shared = Writer(file)
        self._unread: deque[int] = deque()  # for each extent in flight, the number of its last datapoint
        self._sending = threading.RLock()
        self._lingering = threading.Event()
        self._flusher: threading.Thread | None = None
        self._broken: Exception | None = None  # what the flusher failed of

    def put(self, datapoint: Any, tag: int | None = None) -> None:
        """Send a datapoint, or keep it for at most a moment; its arrays may be written to afterwards.

        Raises:
            Stopped: the parent is gone.
        """
        self._await_credit()
        with self._sending:
            self._check()
            try:
                self._gathering.add(datapoint, tag)
            except UnsendableError as error:
                raise error.why from None
            if self._gathering.count:
                self._send_in_time()

    def nothing(self, tag: int) -> None:
        """Say that the map dropped the datapoint with this ticket."""
        self._say(Sent(NOTHING, tags=[tag]))

    def failed(self, error: BaseException, tag: int | None = None) -> None:
        """Say what was raised, with its traceback and the key of the item."""
        trace = "".join(traceback.format_exception(error))
        body = [type(error).__name__, text_of(error), key_of(error), trace]
        self._say(Sent(FAILED, tags=[] if tag is None else [tag], body=body))

    def end(self) -> None:
        """Say that the pass is over."""
        self._say(Sent(END))

    def discard(self) -> None:
        """Forget what was kept: it belongs to a pass that nobody wants any more."""
        with self._sending:
            self._gathering.discard()

    def _flush(self) -> None:
        with self._sending:
            self._gathering.flush()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _say(self, sent: Sent) -> None:
        with self._sending:
            self._check()
            self._gathering.flush()
            self._send(sent)

    # ------------------------------------------------------------------ credit

    def _await_credit(self) -> None:
        if self._window is None or self._sent + self._gathering.count < self._leash.consumed + self._window:
            return
        self._flush()  # the parent can hand out only what it has
        limit = self._sent - self._window
        if self._leash.consumed <= limit:
            self._say_waiting()
        self._leash.wait_for(lambda: self._leash.consumed > limit)

    def _allocate(self, nbytes: int) -> int | None:
        """Return the offset of an extent; None if all of the memory is in the hands of who uses the datapoints."""
        extents = self._shared.extents
        while True:
            for offset in self._leash.freed():
                extents.give_back(offset)
            found = extents.take(nbytes)
            if found is not None:
                return found
            while self._unread and self._unread[0] <= self._leash.consumed:
                self._unread.popleft()
            if not self._unread:
                return None
            self._say_waiting()
            self._leash.wait_for(lambda: self._leash.any_freed or self._leash.consumed >= self._unread[0])

    def _say_waiting(self) -> None:
        with self._sending:
            self._send(Sent(WAITING))

    # ------------------------------------------------------------------ sending

    def _send_in_time(self) -> None:
        """Send what waits if it is worth it or late; else leave it to the next datapoint, or to the flusher."""
        if self._gathering.full or time.monotonic() - self._sent_at >= LINGER:
            self._gathering.flush()
            return
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_late, name="dfserve-outlet", daemon=True)
            self._flusher.start()
        self._lingering.set()

    def _flush_late(self) -> None:
        while True:
            self._lingering.wait()
            self._lingering.clear()
            time.sleep(LINGER)
            try:
                with self._sending:
                    if self._gathering.count and time.monotonic() - self._sent_at >= LINGER:
                        self._gathering.flush()
                    elif self._gathering.count:
                        self._lingering.set()
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # no memory, no descriptors: the pipeline's thread reports it
                self._broken = error
                return

    def _place(self, sent: Sent, buffers: Sequence[bytes | memoryview]) -> None:
        nbytes = extent_bytes(buffers)
        extent = self._allocate(nbytes) if nbytes >= INLINE_BYTES else None
        if extent is None:
            sent.frames = [*sent.frames, *map(bytes, buffers)]
        else:
            self._shared.put(sent, extent, buffers)
        self._send(sent)
        self._sent += sent.count
        if extent is not None:
            self._unread.append(self._sent)

    def _send(self, sent: Sent) -> None:
        sent.label = self.label
        sent.freed = list(self.freed)
        data = packed(sent)
        try:
            self._pipe.send_bytes(data)
        except OSError:
            raise Stopped from None
        for _ in sent.freed:
            self.freed.popleft()
        self._sent_at = time.monotonic()
