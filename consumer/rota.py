"""Owns whose turn it is among the brokers of a stream, and which of them have said its end. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Rota(Generic[T]):
    """Members take turns: first is who was served longest ago.

    Args:
        members: at least one, in the order of their first turns.

    Attributes:
        going: those whose stream has not ended, in the order of their turns.
        ended: those whose stream has, while others go on. What they send meanwhile belongs to the next stream.
    """

    def __init__(self, members: Iterable[T]) -> None:
        self.going: deque[T] = deque(members)
        self.ended: list[T] = []

    def served(self, member: T) -> None:
        """Note that a member had its turn."""
        if len(self.going) > 1:
            self.going.remove(member)
            self.going.append(member)

    def end(self, member: T) -> bool:
        """Note that a member's stream has ended. Tells whether it was the last one; if so, all begin again."""
        self.going.remove(member)
        self.ended.append(member)
        over = not self.going
        if over:
            self.going.extend(self.ended)
            self.ended.clear()
        return over
