"""Owns the columns of a block that was received: their components one by one, or, of a stack, all in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dfserve.wire.arrays import Array, array_view, locked

Place = tuple[tuple[int, ...], int]  # an array's shape, and the byte at which it begins


class Values:
    """Python values, as they came in the body."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def between(self, start: int, stop: int) -> list[Any]:
        """Return the components of the datapoints from ``start`` to ``stop``."""
        return self._values[start:stop]


class Stack:
    """Arrays of one shape and dtype, or numpy scalars, one after the other in a frame.

    Args:
        frame: of ``count`` times as many bytes as one of them has.
        dtype: of all.
        shape: of the stack: ``count``, then the shape of one.
        scalars: they are numpy scalars.
    """

    def __init__(self, frame: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], scalars: bool) -> None:
        self._frame: memoryview | None = frame
        self._array: Array | None = None
        self.dtype = dtype
        self.shape = shape
        self._scalars = scalars

    @property
    def array(self) -> Array:
        """All of them in one array; made once, since it is a copy where the frame is not aligned."""
        if self._array is None:
            assert self._frame is not None
            self._array, self._frame = array_view(locked(self._frame), self.dtype, self.shape), None
        return self._array

    def between(self, start: int, stop: int) -> list[Any]:
        """Return the components of the datapoints from ``start`` to ``stop``, as views."""
        some = self.array[start:stop]
        if self._scalars or some.ndim > 1:
            return list(some)
        return [some[row, ...] for row in range(len(some))]  # the ellipsis makes 0-d arrays, not scalars


class Ragged:
    """Arrays of one dtype and of several shapes in one frame."""

    def __init__(self, frame: memoryview, dtype: np.dtype[Any], places: Sequence[Place]) -> None:
        self._frame = frame
        self._dtype = dtype
        self._places = places

    def between(self, start: int, stop: int) -> list[Array]:
        """Return the components of the datapoints from ``start`` to ``stop``, as views."""
        memory = locked(self._frame)
        return [array_view(memory, self._dtype, shape, place) for shape, place in self._places[start:stop]]


Components = Values | Stack | Ragged
