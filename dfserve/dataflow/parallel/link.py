"""Owns the parent's end of one worker process: its pipes, the memory it shares, and how it ended."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from dfserve.dataflow.parallel.inheritance import keep_from_children
from dfserve.dataflow.parallel.memory import Reader, SharedFile
from dfserve.dataflow.parallel.messages import (
    CONSUMED,
    FREED,
    PICKLED,
    WAITING,
    WANTED,
    WORD_BYTES,
    Sent,
    unpacked,
    word,
)
from dfserve.dataflow.parallel.worker import work
from dfserve.errors import PipelineError, WorkerLost
from dfserve.signal_names import signal_name
from dfserve.wire.blocks import decode_block
from dfserve.wire.limits import Limits
from dfserve.wire.plain_block import view_datapoint

# What a child of ours sends is not limited for safety's sake: it could do anything here anyway.
ANY = Limits(max_frame=1 << 40, max_frames=1 << 20, max_body=1 << 40, max_count=1 << 31)

# A word costs a system call here and wakes a thread there, as much as an image's copy. So they gather, until this much
# is unsaid; a worker that is about to wait says so.
FREED_EXTENTS = 16
FREED_BYTES = 2 << 20
WINDOW = 64  # datapoints: a window where there is none, only for how many gather
MOST_WORDS = 256  # in one write, which is less than PIPE_BUF: all of it is written, or nothing


class Words:
    """The pipe to a worker. Finalisers write to it too: in any thread, at any time, also in a forked child.

    Attributes:
        eager: whether the worker waits, so that nothing gathers.
    """

    def __init__(self, pipe: Connection, batch: int) -> None:
        """Write to ``pipe``; let ``batch`` datapoints that were handed out gather."""
        self._pipe = pipe
        self._pid = os.getpid()
        # Reentrant: a finaliser may run in the middle of any of these lines. In the middle of sending it only adds its
        # words to those that are due; it would send again what is just being sent.
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._open = True
        self.eager = False
        self._batch = batch
        self._consumed = self._told = 0
        self._freed, self._freed_bytes = bytearray(), 0  # words that gather, and the memory that they give back
        self._unsaid = bytearray()  # words to be said at once; they stay when the pipe has no room
        os.set_blocking(pipe.fileno(), False)  # a stopped worker must not stop its parent

    def say(self, kind: int, value: int) -> None:
        """Send a word, if the worker is there and this is the process that started it."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._unsaid.extend(word(kind, value))
            self.retry()

    def consumed(self, count: int) -> None:
        """Note that so many more datapoints were handed out."""
        self._consumed += count
        if self.eager or self._consumed - self._told >= self._batch:
            self._tell()

    def freed(self, extent: int, nbytes: int) -> None:
        """Note that an extent is not in use any more."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._freed.extend(word(FREED, extent))
            self._freed_bytes += nbytes
            self.retry()

    def say_all(self) -> None:
        """Say what has gathered, and from now on everything at once, until ``eager`` is taken back."""
        self.eager = True
        self._tell()
        self.retry()

    def _tell(self) -> None:
        if self._told < self._consumed:
            self._told = self._consumed
            self.say(CONSUMED, self._told)

    def retry(self) -> None:
        """Send what is due, as far as the pipe has room."""
        if not self._due():  # mostly; and whoever adds to it looks again
            return
        with self._lock:
            try:
                self._send()  # no loop here: interrupted at its jump back, Python 3.12 and 3.13 keep the lock
            except BlockingIOError:
                pass  # a worker that is stopped, or slow to listen
            except OSError:  # the worker has ended
                self.close()

    def _send(self) -> None:
        # Looked at anew after each write: what a finaliser added in the middle of it must not wait for another.
        while self._open and self._due() and not self._sending.locked():
            with self._sending:
                self._write_some()

    def _due(self) -> bytearray:
        enough = self.eager or self._freed_bytes >= FREED_BYTES or len(self._freed) >= FREED_EXTENTS * WORD_BYTES
        return self._freed if enough and not self._unsaid else self._unsaid

    def _write_some(self) -> None:
        due = self._due()
        written = map(os.write, (self._pipe.fileno(),), (due[: MOST_WORDS * WORD_BYTES],))
        # Written and taken off in one call, of C code. Between two, an interrupt would have words said again, and the
        # worker take an extent for free that it has lent anew.
        deque(map(due.__delitem__, map(slice, written)), maxlen=0)
        if not self._freed:
            self._freed_bytes = 0

    def close(self) -> None:
        """Hang up: the worker ends."""
        with self._lock:
            if self._open:
                self._open = False
                self._pipe.close()


@contextmanager
def _ctrl_c_held_back(start_method: str) -> Iterator[None]:
    """Start a process with SIGINT blocked until it ignores it: its parent decides what Ctrl-C means."""
    if start_method == "forkserver":  # which would have it blocked for ever, and for whatever else it starts
        yield
        return
    if start_method == "spawn":
        resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Link:
    """One worker as its parent sees it.

    Attributes:
        name: for messages: operator and number.
    """

    def __init__(self, context: Any, name: str, window: int | None, args: tuple[Any, ...]) -> None:
        """Start a process that calls ``work(pipe, words, file, window, *args)``, which gets its ends of the pipes."""
        self.name = name
        self._file = SharedFile()
        self.pipe, far_pipe = context.Pipe(duplex=False)
        far_words, near_words = context.Pipe(duplex=False)
        self.words = Words(near_words, max(1, (window or WINDOW) // 4))
        self._reader = Reader(self._file, self.words.freed)  # no reference back: nothing must hold a link
        keep_from_children(self.pipe, near_words)
        self.process = context.Process(target=work, args=(far_pipe, far_words, self._file, window, *args), name=name)
        try:
            with _ctrl_c_held_back(context.get_start_method()):
                self.process.start()
        finally:
            far_pipe.close()
            far_words.close()

    def receive(self) -> Sent | None:
        """Return the next message, waiting for it; None when the worker has ended."""
        try:
            sent = unpacked(self.pipe.recv_bytes())
        except (EOFError, OSError):
            return None
        if sent.kind == WAITING:
            self.words.say_all()
        else:
            self.words.eager = False
        return sent

    def datapoints(self, sent: Sent) -> list[Any]:
        """Return the datapoints of a message. Their arrays may be written to; nobody else refers to their memory."""
        if sent.kind == PICKLED:
            return [pickle.loads(sent.body)]  # noqa: S301  # our own child's, over a pipe that only it can write to
        frames = self._reader.frames(sent)
        one = view_datapoint(frames) if sent.count == 1 else None
        return decode_block(frames, ANY, writable=True) if one is None else [one]

    def discard(self, sent: Sent) -> None:
        """Give back unread what a message brought."""
        if sent.extent >= 0:
            self.words.freed(sent.extent, sum(length for length in sent.frames if isinstance(length, int)))
        self.words.consumed(sent.count)

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
    hint = "; the kernel's out-of-memory killer does that: see dmesg" if -status == signal.SIGKILL else ""
    return f"was killed by {signal_name(-status)}{hint}"
