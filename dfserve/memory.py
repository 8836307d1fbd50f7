"""Owns the C library's malloc settings for processes that are ours: large blocks stay in the heap, if they are used.

libzmq allocates every message. glibc maps a large one afresh and returns it at once, so that each receive pays a page
fault for every 4 KiB. Keeping them made messages of 38 MB three times faster and of 150 KB up to twice (measured on
2 cores). It is process-wide, so dfserve never does it in a trainer's process.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8

TRIM_BYTES = 1 << 30  # free heap above this goes back to the system: more than a queue's usual swing
IDLE_BYTES = 128 << 20  # what may lie idle for long: twice what a process without a queue has beside its heap
LOOKS = 60  # in a row that find so much: a queue that comes back within a minute pays no page faults


def keep_large_blocks() -> bool:
    """Tell malloc to reuse large blocks. Returns whether the C library took it (musl and macOS do not)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena: with several, what one thread frees another cannot reuse, and the peak is paid once per arena.
    return bool(mallopt(M_ARENA_MAX, 1) and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2, of which only ``uordblks`` is of use here: bytes in use."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


class Heap:
    """The heap of a process that keeps large blocks: returns to the system what a long queue took and nobody uses.

    What is returned is taken again with a page fault for each 4 KiB, so it is what was idle at many looks in a row.
    Nothing is done with another C library than glibc 2.33 or newer.

    Args:
        looks: how many.
    """

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks = looks
        self._left = looks
        self._used = 0  # most bytes at a look
        try:
            self._libc: Any = ctypes.CDLL(None)
            self._libc.mallinfo2.restype = _MallInfo
        except (OSError, AttributeError):
            self._libc = None

    def shrink(self) -> None:
        """Look, and return what has been idle for long; to be called about once a second."""
        if self._libc is None:
            return
        self._used = max(self._used, self._libc.mallinfo2().uordblks)
        self._left -= 1
        if self._left:
            return
        if _own_bytes() - self._used > IDLE_BYTES:
            self._libc.malloc_trim(0)
        self._left, self._used = self._looks, 0


def _own_bytes() -> int:
    """Return how much memory this process has for itself now."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
