"""Owns a reader's map of memory that another process writes: views that are read-only, and the news of their end."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np

from dfserve.sharing.extents import GRAIN
from dfserve.sharing.loans import Bytes, LentMap
from dfserve.wire.columns import aligned
from dfserve.wire.placement import MAX_FREED

NONCE_BYTES = 16
HEAD = GRAIN  # bytes before the first place, of which the first are the nonce


class View:
    """Another process's memory, read-only.

    Args:
        file: a descriptor of it, which this object closes.
        size: bytes that it is said to have.
        nonce: what it is said to begin with.
        buys: as for `LentMap`.

    Raises:
        OSError: it cannot be mapped.
        ValueError: it is other memory.

    Attributes:
        lent: places that something here refers to, or of whose end `take_freed` has yet to tell.
    """

    def __init__(self, file: int, size: int, nonce: bytes, *, buys: bool = True) -> None:
        self.file = file
        weakref.finalize(self, os.close, file)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size or size < HEAD:
            raise ValueError(f"shared memory of {size} bytes was offered, and there are {found.st_size}")
        self._size = size
        if bytes(self._map(HEAD)[:NONCE_BYTES]) != nonce:
            raise ValueError("the memory is another than was offered")
        self.lent = 0
        self._freed: deque[int] = deque()
        self._lent = LentMap(self._map, partial(_gone, self._freed, os.getpid()), buys=buys)
        self._lent.map(size)  # while it can still be refused

    def _map(self, nbytes: int) -> Bytes:
        return np.frombuffer(mmap.mmap(self.file, nbytes, prot=mmap.PROT_READ), np.uint8)

    def frames(self, address: int, lengths: Sequence[int]) -> list[memoryview]:
        """Return the frames that lie at one place, which is free again when nothing refers to any of them.

        Args:
            address: where the first begins.
            lengths: bytes of each; each begins at the next multiple of 64.

        Raises:
            OSError: after a fork, it cannot be mapped anew.
            ValueError: they reach beyond the memory, or are empty.
        """
        total = sum(map(aligned, lengths))
        if not total or address % GRAIN or address < HEAD or address + total > self._size:
            raise ValueError(f"a block of {total} bytes at {address} in shared memory of {self._size}")
        found = self._lent.lend(address, self._size, lengths)
        self.lent += 1
        return found

    def take_freed(self, most: int = MAX_FREED) -> list[int]:
        """Return the addresses of places that nothing refers to any more, once; so many at most."""
        freed = [self._freed.popleft() for _ in range(min(len(self._freed), most))]
        self.lent -= len(freed)
        return freed


def _gone(freed: deque[int], pid: int, address: int, _nbytes: int) -> None:
    if os.getpid() == pid:  # a forked child's end must not free what its parent uses
        freed.append(address)
