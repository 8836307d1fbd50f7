"""Owns what the tests of the serializers share: what "comes back equal" means, and datapoints of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(_same, one.values(), other.values()))
    return bool(repr(one) == repr(other))


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Value, type, dtype, shape and the order of keys are the same."""
    return _same


def _sized(count: int, most: int = 3000) -> list[list[Any]]:
    rng = np.random.default_rng(count)
    return [[rng.integers(0, 256, int(rng.integers(0, most)), np.uint8), number] for number in range(count)]


@pytest.fixture(scope="session")
def sized() -> Callable[..., list[list[Any]]]:
    """Make so many datapoints [uint8 of any length up to ``most``, number]."""
    return _sized
