"""Owns memory that this process writes and others read: its places, and when each of them is free again.

A place is free when nothing here refers to it any more and its reader, if it has one, has done with it as often as it
was lent it. Memory is reserved before it is written: where the system has none left, a write to what was not would kill
the process.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from collections import Counter, deque

import numpy as np

from dfserve.sharing.extents import Extents
from dfserve.sharing.loans import Bytes
from dfserve.sharing.pool_file import HEAD

GROWTH = 8 << 20  # bytes reserved at a time: reserving takes a page fault for each page


class Places:
    """Shared memory, and what of it is in use. May be used by several threads.

    Args:
        file: a descriptor of it, which `close` closes.
        size: its bytes.
        nonce: which memory it is; written to its beginning, where readers look.

    Raises:
        OSError: it cannot be mapped.

    Attributes:
        full: bytes that there were when the system had no more, until some were returned; 0: it has had enough.
    """

    def __init__(self, file: int, size: int, nonce: bytes) -> None:
        self.file = file
        os.posix_fallocate(file, 0, HEAD)
        self._map = mmap.mmap(file, size)
        self._map[: len(nonce)] = nonce
        self._memory: Bytes = np.frombuffer(self._map, np.uint8)
        self._size = size
        self._extents = Extents(size - HEAD)
        self._lock = threading.Lock()
        # How often the reader was told of an address and has not done with it: what a lease made may be sent twice.
        self._lent: Counter[int] = Counter()
        self._held: dict[int, weakref.ref[Bytes]] = {}  # those that something here refers to
        self._let_go: deque[int] = deque()  # filled by any thread, at any time
        self._reserved = 0  # bytes after the head
        self.full = 0
        self._said = False  # that it has been full

    @property
    def used(self) -> int:
        """Bytes that are in use."""
        return self._extents.lent

    def take(self, nbytes: int) -> Bytes | None:
        """Return uninitialised memory of shape (nbytes,); None: there is no room.

        Only memoryviews of it keep its place; views of it do not.
        """
        with self._lock:
            self._sweep()
            extent = self._extents.take(nbytes)
            if extent is None:
                return None
            reserved = False
            try:
                reserved = self._reserve(extent + nbytes)
            finally:  # also where a signal's handler raises: it takes a while
                if not reserved:
                    self._extents.give_back(extent)
            if not reserved:
                return None
            address = HEAD + extent
            lease = self._memory[address : address + nbytes]
            let_go = self._let_go
            self._held[address] = weakref.ref(lease, lambda _: let_go.append(address))
        return lease

    def address_of(self, memory: memoryview) -> int | None:
        """Return where in this memory something lies; None: elsewhere."""
        if not len(self._memory):
            return None
        address = _pointer(memory) - _pointer(self._memory.data)
        return address if 0 <= address < self._size else None

    def lend(self, address: int, nbytes: int) -> None:
        """Note that the reader has a place, of which ``nbytes`` bytes are used and the rest is free from now on."""
        with self._lock:
            self._lent[address] += 1
            self._extents.trim(address - HEAD, nbytes)

    def give_back(self, address: int) -> None:
        """Note that the reader has done with a place that it was lent, once; what is none is ignored."""
        with self._lock:
            self._sweep()
            left = self._lent.pop(address, 0) - 1
            if left > 0:
                self._lent[address] = left
            elif address not in self._held:
                self._extents.give_back(address - HEAD)

    def _sweep(self) -> None:
        """Free what nothing here refers to any more, and the reader has done with."""
        let_go = self._let_go
        while let_go:
            address = let_go.popleft()
            self._held.pop(address, None)
            if address not in self._lent:
                self._extents.give_back(address - HEAD)

    def _reserve(self, end: int) -> bool:
        if end <= self._reserved:
            return True
        if self.full:
            return False
        wanted = min(-(-end // GROWTH) * GROWTH, self._size - HEAD)
        try:
            os.posix_fallocate(self.file, HEAD + self._reserved, wanted - self._reserved)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            self.full = HEAD + self._reserved
            if not self._said:
                self._said = True
                self._out_of_memory()
            return False
        self._reserved = wanted
        return True

    def _out_of_memory(self) -> None:
        """Say so."""

    def shrink(self) -> None:
        """Return what is reserved behind the last place in use to the system, if that is more than half of it."""
        with self._lock:
            self._sweep()
            end = -(-self._extents.end // GROWTH) * GROWTH
            if self._reserved > GROWTH and 2 * end < self._reserved:
                self._map.madvise(mmap.MADV_REMOVE, HEAD + end, self._reserved - end)
                self._reserved = end
                self.full = 0  # what is given back may be had again

    def close(self) -> None:
        """Let go of the memory. It lives on in readers' maps, and in what refers to a place in it."""
        with self._lock:
            self._extents = Extents(0)
            self._memory = np.empty(0, np.uint8)
            del self._map
            os.close(self.file)


def _pointer(memory: memoryview) -> int:
    found: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    return found
