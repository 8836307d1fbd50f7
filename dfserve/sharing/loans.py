"""Owns what is lent out of mapped memory that another process writes: views, and the news that nothing refers to them.

A forked child would share that memory, not copy it. So before a fork all that is on loan is replaced by private copies,
at the same addresses, and given back.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfserve.sharing.extents import GRAIN
from dfserve.sharing.remapping import make_private
from dfserve.wire.columns import aligned

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
GiveBack = Callable[[int, int], object]  # with an extent's offset and its bytes


class LentMap:
    """A map that is lent from.

    Args:
        mapped: maps the first so many bytes, and returns them as an array that keeps the mapping alive.
        give_back: called with an extent's offset and bytes when nothing refers to its views any more; in any thread at
            any time, also in a forked child.
        buys: replace what is on loan by copies before a fork. Not for one who passes on where it lies: to others it is
            in use as before.
    """

    def __init__(self, mapped: Callable[[int], Bytes], give_back: GiveBack, *, buys: bool = True) -> None:
        self._loans = _LOANS if buys else set()
        self._mapped = mapped
        self._give_back = give_back
        self._memory: Bytes = np.empty(0, np.uint8)
        if buys:
            _MAPS.add(self)

    def map(self, size: int) -> None:
        """Map so many bytes now.

        Raises:
            OSError: there are not enough addresses.
        """
        self._memory = self._mapped(size)

    def lend(self, extent: int, size: int, lengths: Sequence[int]) -> list[memoryview]:
        """Return views of an extent, one after the other at multiples of 64 bytes.

        Args:
            extent: its offset.
            size: bytes that are to be mapped.
            lengths: bytes of each view.
        """
        if size > len(self._memory):
            self.map(size)
        lease = self._memory[extent:]
        loan = Loan(self._memory, lease.ctypes.data, sum(map(aligned, lengths)), extent, self._give_back)
        self._loans.add(loan)
        # Only memoryviews of an array keep it alive, views of it refer to what it is a view of.
        weakref.finalize(lease, _end, self._loans, loan).atexit = False
        views = []
        start = 0
        for length in lengths:
            views.append(lease.data[start : start + length])
            start += aligned(length)
        return views

    def forget(self) -> None:
        """Map what comes next anew."""
        self._memory = np.empty(0, np.uint8)


class Loan:
    """An extent that is in use here. It keeps the map, which must be there as long as the loan is on the list.

    That is longer than the lease where Ctrl-C broke off the making or the ending of one.
    """

    def __init__(self, memory: Bytes, address: int, nbytes: int, extent: int, give_back: GiveBack) -> None:
        self.memory = memory
        self.address = address
        self.nbytes = -(-nbytes // GRAIN) * GRAIN
        self.extent = extent
        self.give_back = give_back


_LOANS: set[Loan] = set()
_MAPS: weakref.WeakSet[LentMap] = weakref.WeakSet()


def _end(loans: set[Loan], loan: Loan) -> None:
    try:
        loans.remove(loan)  # in one step: a fork in another thread may buy it just now
    except KeyError:
        return
    loan.give_back(loan.extent, loan.nbytes)


def _buy_all() -> None:
    """Before a fork, make all that is on loan this process's own: parent and child would see each other's changes."""
    for each in list(_MAPS):
        each.forget()  # where a loan lay in its map, there is private memory now
    while _LOANS:
        loan = _LOANS.pop()
        make_private(loan.address, loan.nbytes)
        loan.give_back(loan.extent, loan.nbytes)


if sys.platform.startswith("linux"):
    os.register_at_fork(before=_buy_all)
