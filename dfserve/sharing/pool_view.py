"""Owns a reader's map of a pool: views of what lies in it, which are read-only, and the news of their end."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from collections import deque
from functools import partial

import numpy as np

from dfserve.sharing.extents import GRAIN
from dfserve.sharing.loans import Bytes, LentMap
from dfserve.sharing.pool_file import HEAD, NONCE_BYTES, opened, path_of
from dfserve.wire.columns import aligned
from dfserve.wire.placement import MAX_FREED


class PoolView:
    """Another process's pool.

    Args:
        path, size, nonce: as the one that offers it says.
        buys: as for `LentMap`.

    Raises:
        OSError: there is nothing at that path, or not for us; or it cannot be mapped.
        ValueError: what is there is something else.

    Attributes:
        lent: places that something here refers to, or of whose end `take_freed` has yet to tell.
    """

    def __init__(self, path: str, size: int, nonce: bytes, *, buys: bool = True) -> None:
        self.size = size
        self.nonce = nonce
        self.file = opened(path)
        weakref.finalize(self, os.close, self.file)
        found = os.fstat(self.file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size or size < HEAD:
            raise ValueError(f"shared memory of {size} bytes was offered, and there are {found.st_size}")
        if bytes(self._map(HEAD)[:NONCE_BYTES]) != nonce:
            raise ValueError("the memory is another than was offered")
        self.lent = 0
        self._freed: deque[int] = deque()
        self._lent = LentMap(self._map, partial(_gone, self._freed, os.getpid()), buys=buys)
        self._lent.map(size)  # while it can still be refused

    def _map(self, nbytes: int) -> Bytes:
        return np.frombuffer(mmap.mmap(self.file, nbytes, prot=mmap.PROT_READ), np.uint8)

    @property
    def path(self) -> str:
        """Where others find it as long as this process lives, whatever becomes of the one that fills it."""
        return path_of(self.file)

    def frame(self, address: int, nbytes: int) -> memoryview:
        """Return the frame that lies at a place, which is free again when nothing refers to it any more.

        Raises:
            OSError: after a fork, it cannot be mapped anew.
            ValueError: it reaches beyond the memory, or is empty.
        """
        if not nbytes or address % GRAIN or address < HEAD or address + aligned(nbytes) > self.size:
            raise ValueError(f"a frame of {nbytes} bytes at {address} in shared memory of {self.size}")
        (found,) = self._lent.lend(address, self.size, [nbytes])
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
