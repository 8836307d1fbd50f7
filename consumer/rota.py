"""Owns whose turn it is among the brokers of a stream, and which of them have said its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Rota(Generic[T]):
    """Members take turns: first is who was served longest ago.

    What changes, changes at once: an interrupt, as Ctrl-C is one, finds it as it was or as it will be.

    Args:
        going: at least one, in the order of their first turns.
        ended: see below.

    Attributes:
        going: those whose stream has not ended, in the order of their turns.
        ended: those whose stream has, while others go on. What they send meanwhile belongs to the next stream.
    """

    def __init__(self, going: Iterable[T], ended: Iterable[T] = ()) -> None:
        self.going = list(going)
        self.ended = list(ended)

    def served(self, member: T) -> None:
        """Note that a member had its turn."""
        if len(self.going) > 1:
            self.going = [*self._others(member), member]

    def after_end(self, member: T) -> tuple[Rota[T], bool]:
        """Return how it goes on after a member's stream, and whether that was the last one; if so, all begin again."""
        others, ended = self._others(member), [*self.ended, member]
        return (Rota(others, ended), False) if others else (Rota(ended), True)

    def _others(self, member: T) -> list[T]:
        return [each for each in self.going if each != member]
