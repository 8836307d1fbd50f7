"""Owns the check of arguments that count something: threads, processes, datapoints of a buffer."""

from __future__ import annotations

import operator
from typing import Any

from dfserve.errors import ConfigError


def positive(count: Any, name: str) -> int:
    """Return ``count``, an argument called ``name``, as an int.

    Raises:
        ConfigError: it is no whole number, or below 1.
    """
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} is {count!r}; it must be a whole number, at least 1")
    return number
