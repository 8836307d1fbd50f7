"""Owns memory for large frames that is used again as soon as nothing refers to it any more.

The C library returns a large allocation to the system when it is freed, so that the next one pays a page fault for
every 4 KiB: measured, three quarters of the time of receiving 38 MB arrays. A lease is an array whose death (that of
the last memoryview or libzmq message over it) puts its memory back.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np

STEP = 1 << 20  # bytes: sizes are rounded up to it, so that batches of almost one size share memory
KEEP = 16  # idle pieces of memory of one size: what is in flight at once on one connection
IDLE_BYTES = 256 << 20  # idle bytes in all: a stream of ever new sizes must not collect memory

Memory = np.ndarray[Any, np.dtype[np.uint8]]


class Recycler:
    """Lends memory. Leases may end in any thread."""

    def __init__(self) -> None:
        self._idle: dict[int, deque[Memory]] = {}

    def take(self, nbytes: int) -> Memory:
        """Lend uninitialised memory of shape (nbytes,). Only memoryviews of it keep the lease; views of it do not."""
        size = -(-nbytes // STEP) * STEP
        try:
            whole = self._idle[size].pop()
        except (KeyError, IndexError):
            whole = np.empty(size, np.uint8)
        lease = whole[:nbytes]
        weakref.finalize(lease, self._give_back, whole).atexit = False
        return lease

    def _give_back(self, whole: Memory) -> None:
        if sum(len(some) * size for size, some in list(self._idle.items())) + len(whole) > IDLE_BYTES:
            self._idle.clear()
        idle = self._idle.setdefault(len(whole), deque(maxlen=KEEP))
        idle.append(whole)
