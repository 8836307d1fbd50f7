"""Owns the decision where in a worker's shared memory the next block goes: first fit, lowest address first."""

from __future__ import annotations

from bisect import insort

GRAIN = 64 << 10  # bytes: extents are multiples of it, so that blocks of nearly one size use each other's places


class Extents:
    """The free and the lent parts of ``capacity`` bytes. The lowest part that fits is taken, which the caches know.

    Attributes:
        capacity: bytes in all, a multiple of the grain.
        top: bytes from the beginning that were ever lent: what must exist of the memory.
    """

    def __init__(self, capacity: int) -> None:
        """Begin with all of ``capacity`` bytes free."""
        self.capacity = capacity - capacity % GRAIN
        self.top = 0
        self._free: list[tuple[int, int]] = [(0, self.capacity)]  # (offset, size), by offset, never adjacent
        self._lent: dict[int, int] = {}

    def take(self, nbytes: int) -> int | None:
        """Lend ``nbytes`` bytes; return their offset, or None if no free part is large enough."""
        size = max(GRAIN, -(-nbytes // GRAIN) * GRAIN)
        for place, (offset, free) in enumerate(self._free):
            if free >= size:
                if free == size:
                    del self._free[place]
                else:
                    self._free[place] = (offset + size, free - size)
                self._lent[offset] = size
                self.top = max(self.top, offset + size)
                return offset
        return None

    def give_back(self, offset: int) -> None:
        """Take back what was lent at ``offset``; what is not lent is ignored, since a message may come twice."""
        size = self._lent.pop(offset, None)
        if size is None:
            return
        insort(self._free, (offset, size))
        place = self._free.index((offset, size))
        if place + 1 < len(self._free) and self._free[place + 1][0] == offset + size:
            size += self._free.pop(place + 1)[1]
            self._free[place] = (offset, size)
        if place and sum(self._free[place - 1]) == offset:
            before, length = self._free[place - 1]
            self._free[place - 1 : place + 1] = [(before, length + size)]

    def trim(self, offset: int, nbytes: int) -> None:
        """Take back what lies behind the first ``nbytes`` bytes of what was lent at ``offset``."""
        size = max(GRAIN, -(-nbytes // GRAIN) * GRAIN)
        before = self._lent.get(offset, 0)
        if before > size:
            self._lent[offset] = size
            self._lent[offset + size] = before - size
            self.give_back(offset + size)

    @property
    def end(self) -> int:
        """Bytes from the beginning to the end of the last part that is lent."""
        return max((offset + size for offset, size in self._lent.items()), default=0)

    @property
    def lent(self) -> int:
        """Bytes that are lent."""
        return sum(self._lent.values())
