"""Owns what an index into a source means: as in a list, from either end, and an IndexError outside."""

from __future__ import annotations

from operator import index as as_int
from typing import SupportsIndex


def place_of(index: SupportsIndex, length: int) -> int:
    """Return the place, from 0, that ``index`` means in a source of ``length`` datapoints; negative: from its end.

    Raises:
        IndexError: there is no such place. What iterates by index alone ends there.
    """
    place = as_int(index)
    if not -length <= place < length:
        raise IndexError(f"index {place} of a source with {length} datapoints")
    return place + length if place < 0 else place
