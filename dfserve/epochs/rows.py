"""Owns which datapoints of an epoch belong to which rank.

The outputs of an epoch are numbered 0, 1, 2, ... A row is ``world * stride`` of them, and rank r takes the r-th stride
of every row. With one rank there is nothing to share out: all is its own, and no row is ever incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfserve.errors import ConfigError


@dataclass(frozen=True)
class Rows:
    """How the outputs of an epoch are dealt out.

    Attributes:
        world: how many ranks there are; at least 1.
        stride: datapoints that a rank takes at a time, mostly a batch; at least 1.
    """

    world: int
    stride: int

    def __post_init__(self) -> None:
        if self.world < 1:
            raise ConfigError(f"world is {self.world}; it counts the ranks and must be at least 1")
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; it counts a rank's datapoints of a row and must be at least 1")

    @property
    def size(self) -> int:
        """Datapoints of a row."""
        return self.world * self.stride

    def ranks(self, start: int, count: int) -> tuple[int, ...]:
        """Return the ranks that ``count`` outputs from ``start`` on belong to, in the order in which they come."""
        if count < 1:
            return ()
        first = start // self.stride
        last = (start + count - 1) // self.stride
        return tuple(stride % self.world for stride in range(first, min(last, first + self.world - 1) + 1))

    def ranges(self, rank: int, start: int, count: int) -> list[range]:
        """Return which of ``count`` outputs from ``start`` on belong to ``rank``.

        Returns:
            Ranges of offsets from ``start``, ascending, none of them empty.

        Raises:
            ConfigError: there is no such rank.
        """
        self._check(rank)
        if count < 1:
            return []
        if self.world == 1:
            return [range(count)]
        first = start // self.stride
        first += (rank - first) % self.world  # the first stride of this rank that does not end before `start`
        return [
            range(max(begin, 0), min(begin + self.stride, count))
            for begin in range(first * self.stride - start, count, self.size)
        ]

    def ready(self, total: int) -> int:
        """Return how many outputs can be handed out once ``total`` are known: those in complete rows."""
        return total - self.dropped(total)

    def dropped(self, total: int) -> int:
        """Return how many of ``total`` outputs lie in the last, incomplete row: what ``even="drop"`` leaves out."""
        return 0 if self.world == 1 else total % self.size

    def share(self, total: int, even: str | None) -> int:
        """Return how many datapoints each rank yields of an epoch with ``total`` outputs.

        Args:
            total: outputs of the epoch.
            even: what becomes of the last, incomplete row: "drop", or "pad" to complete it. Not used with one rank.

        Raises:
            ConfigError: there are several ranks, and ``even`` is neither.
        """
        if self.world == 1:
            return total
        if even == "drop":
            return total // self.size * self.stride
        if even == "pad":
            return -(-total // self.size) * self.stride
        raise ConfigError(f'even is {even!r}; with world={self.world} it must be "drop" or "pad"')

    def padding(self, rank: int, total: int) -> list[int]:
        """Return what ``rank`` yields again at the end of an epoch with ``total`` outputs, for ``even="pad"``.

        Returns:
            Numbers of outputs, in order. They are of the last, incomplete row, which is gone through again and again
            until the row is full, so some belong to other ranks. Empty if no row is incomplete.

        Raises:
            ConfigError: there is no such rank.
        """
        self._check(rank)
        left = self.dropped(total)
        if not left:
            return []
        places = range(max(rank * self.stride, left), (rank + 1) * self.stride)
        return [total - left + place % left for place in places]

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.world:
            raise ConfigError(f"rank is {rank}; with world={self.world} ranks are 0 to {self.world - 1}")
