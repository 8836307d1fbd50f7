"""Owns writable copies of received datapoints, whose arrays are read-only views."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def writable(datapoint: T) -> T:
    """Return a deep copy of a received datapoint: every array in it is writable, C-contiguous and owns its memory.

    Received arrays are read-only because they are views of the received message, which other datapoints share; a
    pipeline that works in place needs this, one that does not saves a copy without it.
    """
    return _copied(datapoint)  # type: ignore[no-any-return]  # the same types in the same places


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.void):  # a structured scalar is a view too
        return value.copy()
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return set(value) if type(value) is set else value  # what a set holds is immutable, as is all else
