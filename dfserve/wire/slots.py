"""Owns which bytes of a shared arena are in use: slots are taken at the lowest address that has room. Pure.

Low addresses first, so that an arena touches as much memory as is used at once, and what was just freed, which is still
in the processor's cache, is written next.
"""

from __future__ import annotations

from bisect import insort

ALIGNMENT = 64  # bytes: a cache line, and what numpy's fastest loops ask for


def rounded(nbytes: int) -> int:
    """Return how many bytes a slot or a frame in one takes."""
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


class Slots:
    """The slots of one arena.

    Args:
        size: bytes of the arena.

    Attributes:
        used: bytes in slots.
        peak: the highest address that was ever in a slot: so much memory has been touched.
    """

    def __init__(self, size: int) -> None:
        self.used = 0
        self.peak = 0
        self._free: list[tuple[int, int]] = [(0, size)] if size else []  # (address, bytes), sorted; none adjoin
        self._taken: dict[int, int] = {}  # bytes by address

    def take(self, nbytes: int) -> int | None:
        """Return the address of a slot of so many bytes; None if there is no room."""
        nbytes = rounded(nbytes)
        for place, (address, room) in enumerate(self._free):
            if room >= nbytes:
                self._free[place : place + 1] = [(address + nbytes, room - nbytes)] if room > nbytes else []
                self._taken[address] = nbytes
                self.used += nbytes
                self.peak = max(self.peak, address + nbytes)
                return address
        return None

    def give_back(self, address: int) -> bool:
        """Free a slot. False: there is none at that address, and nothing changes."""
        nbytes = self._taken.pop(address, None)
        if nbytes is None:
            return False
        self.used -= nbytes
        insort(self._free, (address, nbytes))
        self._merge(self._free.index((address, nbytes)))
        return True

    def _merge(self, place: int) -> None:
        first = max(0, place - 1)
        for _ in range(2):
            if first + 1 >= len(self._free):
                return
            (address, room), (following, more) = self._free[first : first + 2]
            if address + room == following:
                self._free[first : first + 2] = [(address, room + more)]
            else:
                first += 1
