"""Owns memory that two processes share: one writes blocks into extents of it, the other lends them out as views."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import reduction
from typing import Any

import numpy as np

from dfserve.dataflow.parallel.extents import Extents
from dfserve.dataflow.parallel.messages import Sent
from dfserve.dataflow.parallel.remapping import remap_privately
from dfserve.wire.columns import aligned

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

CAPACITY = 256 << 20  # bytes of one file: six of the largest batches in use (38 MB); what is not used costs nothing
FIRST = 1 << 20  # bytes of it that exist at first


class SharedFile:
    """An anonymous file that two processes map. It travels to a worker in the arguments of its process.

    It has no name and counts against no limit on /dev/shm, and the kernel frees it with its last user, however that
    ends.
    """

    def __init__(self) -> None:
        """Make an empty one. Where the system has no memfd, it is an unlinked temporary file."""
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("dfserve-worker")
        else:  # macOS
            self.fd, path = tempfile.mkstemp()
            os.unlink(path)  # noqa: PTH108  # as plain as mkstemp, which gave a string

    def grow(self, nbytes: int) -> None:
        """Make it ``nbytes`` long; the maps that exist keep their length."""
        os.ftruncate(self.fd, nbytes)

    def map(self, nbytes: int) -> Bytes:
        """Return its first ``nbytes`` as writable uint8, which keep the mapping alive."""
        return np.frombuffer(mmap.mmap(self.fd, nbytes), np.uint8)

    def close(self) -> None:
        """Give up the file, not the maps."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __reduce__(self) -> Any:
        return _received, (reduction.DupFd(self.fd),)


def _received(duplicate: Any) -> SharedFile:
    file = SharedFile.__new__(SharedFile)
    file.fd = duplicate.detach()
    return file


class Writer:
    """The side of a shared file that decides what lies where, and writes it.

    Attributes:
        extents: free and lent.
    """

    def __init__(self, file: SharedFile) -> None:
        """Write to ``file``, which is empty."""
        self._file = file
        self.extents = Extents(CAPACITY)
        self._memory: Bytes = np.empty(0, np.uint8)

    def put(self, sent: Sent, extent: int, buffers: Sequence[bytes | memoryview]) -> None:
        """Copy buffers into an extent, each to the next multiple of 64 bytes, and note in the message where."""
        if self.extents.top > len(self._memory):
            size = min(max(self.extents.top, 2 * len(self._memory), FIRST), self.extents.capacity)
            self._file.grow(size)
            self._memory = self._file.map(size)
        start = extent
        for buffer in buffers:
            self._memory[start : start + len(buffer)] = np.frombuffer(buffer, np.uint8)
            start += aligned(len(buffer))
        sent.extent, sent.size, sent.frames = extent, len(self._memory), [*sent.frames, *map(len, buffers)]


class Reader:
    """The side of a shared file that uses what was written, and says when an extent is not in use any more.

    When the process forks, its child has the same memory. So what is lent at that moment is never given back, or the
    child's arrays would change under it; and the child maps the memory anew, so that what it writes is its own.
    """

    def __init__(self, file: SharedFile, give_back: Callable[[int], object]) -> None:
        """Read ``file``; ``give_back(extent)`` is called in any thread at any time, also in a forked child."""
        self._file = file
        self._give_back = give_back
        self._memory: Bytes = np.empty(0, np.uint8)
        self._maps: list[weakref.ref[Bytes]] = []
        self._lent: set[int] = set()
        _READERS.add(self)

    def frames(self, sent: Sent) -> list[bytearray | memoryview]:
        """Return the frames of a BLOCK, all writable. Its extent goes back when nothing refers to any of them."""
        frames: list[bytearray | memoryview] = [bytearray(frame) for frame in sent.frames if isinstance(frame, bytes)]
        if sent.extent >= 0:
            frames += self._views(sent.extent, sent.size, [length for length in sent.frames if isinstance(length, int)])
        return frames

    def _views(self, extent: int, size: int, lengths: Sequence[int]) -> list[memoryview]:
        if size > len(self._memory):
            self._memory = self._file.map(size)
            self._maps = [found for found in self._maps if found() is not None] + [weakref.ref(self._memory)]
        lease = self._memory[extent:]
        self._lent.add(extent)
        # Only memoryviews of an array keep it alive, views of it refer to what it is a view of.
        weakref.finalize(lease, _end_lease, extent, self._lent, self._give_back).atexit = False
        views = []
        start = 0
        for length in lengths:
            views.append(lease.data[start : start + length])
            start += aligned(length)
        return views

    def pin(self) -> None:
        """Never give back what is lent now."""
        self._lent.clear()

    def part(self) -> None:
        """Map everything that is in use anew, in a forked child, as memory of its own: what is written is copied."""
        for found in self._maps:
            memory = found()
            if memory is not None and self._file.fd >= 0:
                remap_privately(memory.ctypes.data, len(memory), self._file.fd)


def _end_lease(extent: int, lent: set[int], give_back: Callable[[int], object]) -> None:
    if extent in lent:
        lent.discard(extent)
        give_back(extent)


_READERS: weakref.WeakSet[Reader] = weakref.WeakSet()


def _pin_all() -> None:
    for reader in list(_READERS):
        reader.pin()


def _part_all() -> None:
    for reader in list(_READERS):
        reader.part()


os.register_at_fork(before=_pin_all, after_in_child=_part_all)
