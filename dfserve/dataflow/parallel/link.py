"""Owns the parent's end of one worker process: its pipes, the memory it shares, and how it ended."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from dfserve.dataflow.parallel.inheritance import keep_from_children
from dfserve.dataflow.parallel.memory import Reader, SharedFile
from dfserve.dataflow.parallel.messages import CONSUMED, FREED, PICKLED, WANTED, Sent, unpacked, word
from dfserve.dataflow.parallel.worker import work
from dfserve.errors import PipelineError, WorkerLost
from dfserve.wire.blocks import decode_block
from dfserve.wire.limits import Limits

# What a child of ours sends is not limited for safety's sake: it could do anything here anyway.
ANY = Limits(max_frame=1 << 40, max_frames=1 << 20, max_body=1 << 40, max_count=1 << 31)


class Words:
    """The pipe to a worker. Finalisers write to it too: in any thread, at any time, also in a forked child."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._pid = os.getpid()
        # Reentrant: a finaliser may run in the middle of any of these lines.
        self._lock = threading.RLock()
        self._open = True
        self._unsaid: deque[bytes] = deque()
        os.set_blocking(pipe.fileno(), False)  # a stopped worker must not stop its parent

    def say(self, kind: int, value: int) -> None:
        """Send a word, if the worker is there and this is the process that started it."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._unsaid.append(word(kind, value))
            self.retry()

    def retry(self) -> None:
        """Send what the pipe had no room for."""
        with self._lock:
            try:
                while self._open and self._unsaid:
                    os.write(self._pipe.fileno(), self._unsaid[0])
                    self._unsaid.popleft()
            except BlockingIOError:
                pass  # a worker that is stopped, or slow to listen
            except OSError:  # the worker has ended
                self.close()

    def close(self) -> None:
        """Hang up: the worker ends."""
        with self._lock:
            if self._open:
                self._open = False
                self._pipe.close()


class Link:
    """One worker as its parent sees it.

    Attributes:
        name: for messages: operator and number.
    """

    def __init__(self, context: Any, name: str, args: tuple[Any, ...]) -> None:
        """Start a process that calls ``work(pipe, words, file, *args)``, which gets its ends of the pipes."""
        self.name = name
        self._file = SharedFile()
        self.pipe, far_pipe = context.Pipe(duplex=False)
        far_words, near_words = context.Pipe(duplex=False)
        self.words = Words(near_words)
        self._reader = Reader(self._file, partial(self.words.say, FREED))  # no reference back: nothing must hold a link
        keep_from_children(self.pipe, near_words)
        self.process = context.Process(target=work, args=(far_pipe, far_words, self._file, *args), name=name)
        try:
            self.process.start()
        finally:
            far_pipe.close()
            far_words.close()
        self._consumed = 0
        self._unsaid = 0

    def receive(self) -> Sent | None:
        """Return the next message, waiting for it; None when the worker has ended."""
        try:
            return unpacked(self.pipe.recv_bytes())
        except (EOFError, OSError):
            return None

    def datapoints(self, sent: Sent) -> list[Any]:
        """Return the datapoints of a message. Their arrays may be written to; nobody else refers to their memory."""
        if sent.kind == PICKLED:
            return [pickle.loads(sent.body)]  # noqa: S301  # our own child's, over a pipe that only it can write to
        return decode_block(self._reader.frames(sent), ANY, writable=True)

    def discard(self, sent: Sent, batch: int) -> None:
        """Give back unread what a message brought."""
        if sent.extent >= 0:
            self.words.say(FREED, sent.extent)
        self.consumed(sent.count, batch)

    def consumed(self, count: int, batch: int = 1) -> None:
        """Tell the worker that so many more datapoints were handed out; at once if ``batch`` have gathered."""
        self._consumed += count
        self._unsaid += count
        if self._unsaid >= batch:
            self.say_consumed()

    def say_consumed(self) -> None:
        """Tell the worker what it was not told yet: always before waiting for it."""
        self.words.retry()
        if self._unsaid:
            self._unsaid = 0
            self.words.say(CONSUMED, self._consumed)

    def want(self, number: int) -> None:
        """Tell the worker which pass is wanted."""
        self.words.say(WANTED, number)

    def error(self, sent: Sent) -> PipelineError:
        """Return the error for a message that says that the worker's code raised."""
        kind, text, key, trace = sent.body
        where = f" at {key}" if key else ""
        return PipelineError(
            f"{kind}{where} in {self.name}: {text}", key=key, kind=kind, worker=self.name, remote_traceback=trace
        )

    def lost(self) -> WorkerLost:
        """Return the error for a worker that ended without a word."""
        self.process.join(5)
        return WorkerLost(f"{self.name} (pid {self.process.pid}) {_ended(self.process.exitcode)}", worker=self.name)

    def hang_up(self) -> None:
        """Close the pipes, upon which the worker ends; what was received stays valid."""
        self.words.close()
        self.pipe.close()
        self._file.close()


def _ended(status: int | None) -> str:
    if status is None:
        return "closed its pipe but has not ended; something in the pipeline closed file descriptors"
    if status == 0:
        return "has ended after the error that it reported"
    if status > 0:
        return f"ended with status {status}: what it printed on stderr says why"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    hint = "; the kernel's out-of-memory killer does that: see dmesg" if -status == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
