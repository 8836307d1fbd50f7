"""Owns memory that two processes share: one writes blocks into extents of it, the other lends them out as views."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any

import numpy as np

from dfserve.dataflow.parallel.messages import Sent
from dfserve.sharing.extents import Extents
from dfserve.sharing.loans import Bytes, GiveBack, LentMap
from dfserve.wire.columns import aligned

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
        """Return its first ``nbytes`` as writable uint8, which keep the mapping alive.

        Raises:
            OSError: the file was given up; or the system has no room for the map.
        """
        if self.fd < 0:
            raise OSError("the memory of a worker that was closed")  # mmap would give other memory, of zeros
        return np.frombuffer(mmap.mmap(self.fd, nbytes), np.uint8)

    def close(self) -> None:
        """Give up the file, not the maps."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

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
    """The side of a shared file that uses what was written, and says when an extent is not in use any more."""

    def __init__(self, file: SharedFile, give_back: GiveBack) -> None:
        """Read ``file``; ``give_back(extent, nbytes)`` is called in any thread at any time, also in a forked child."""
        self._lent = LentMap(file.map, give_back)

    def frames(self, sent: Sent) -> list[bytearray | memoryview]:
        """Return the frames of a BLOCK, all writable. Its extent goes back when nothing refers to any of them."""
        frames: list[bytearray | memoryview] = [bytearray(frame) for frame in sent.frames if isinstance(frame, bytes)]
        if sent.extent >= 0:
            lengths = [length for length in sent.frames if isinstance(length, int)]
            frames += self._lent.lend(sent.extent, sent.size, lengths)
        return frames
