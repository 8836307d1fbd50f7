"""Owns what "comes back equal" means: value, type, dtype with byte order, shape, and order of dict keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfserve.wire.blocks import decode_block, encode_block, inspect_block


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and _same_elements(one, other)
    if isinstance(one, np.generic):
        return _same_elements(np.asarray(one), np.asarray(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return _same(list(one), list(other)) and all(map(_same, one.values(), other.values()))
    if isinstance(one, float | complex):
        return bool(repr(one) == repr(other))
    return bool(one == other)


def _same_elements(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    if one.dtype != other.dtype or one.dtype.str != other.dtype.str:
        return False
    if one.dtype.names:
        return all(_same_elements(one[name], other[name]) for name in one.dtype.names)
    return one.tobytes() == other.tobytes()


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Return the comparison that every round trip is held to."""
    return _same


def _travelled(*datapoints: Any) -> list[Any]:
    block = encode_block(datapoints)
    frames = [bytes(frame) for frame in block.frames]
    assert block.nbytes == sum(map(len, frames))
    assert block.count == inspect_block(frames) == len(datapoints)
    return decode_block(frames)


@pytest.fixture(scope="session")
def travelled() -> Callable[..., list[Any]]:
    """Return the round trip: datapoints to bytes and back."""
    return _travelled
