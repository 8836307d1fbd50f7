"""Owns the sources that need no files: lists, iterables, generators and fake data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dfserve.dataflow.base import DataFlow, Datapoint, RNGDataFlow, known_length
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.rng import PhiloxState
from dfserve.errors import ConfigError, DatapointError, UnknownLengthError


class DataFromList(RNGDataFlow):
    """The datapoints of a list, in random order by default."""

    def __init__(self, lst: Sequence[Datapoint], shuffle: bool = True) -> None:
        """Take the datapoints from ``lst``; ``shuffle`` draws a new order for every pass, as by default."""
        self.lst = lst
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(self.lst)

    def __getitem__(self, index: int) -> Datapoint:
        """Return the datapoint at ``index`` of the list, whatever the order of the passes; IndexError outside."""
        return self.lst[place_of(index, len(self.lst))]

    def __iter__(self) -> Iterator[Datapoint]:
        if not self.shuffle:
            yield from self.lst
            return
        order = np.arange(len(self.lst))
        self.rng.shuffle(order)
        for index in order.tolist():
            yield self.lst[index]


class DataFromIterable(DataFlow):
    """The datapoints of any iterable, which is iterated anew for every pass."""

    def __init__(self, iterable: Iterable[Datapoint]) -> None:
        """Take an iterable of datapoints. What iterates only once (a generator) makes one pass only.

        Raises:
            ConfigError: it cannot be iterated.
        """
        if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
            raise ConfigError(f"an object of type {type(iterable).__name__} is no iterable of datapoints")
        self._source: Any = iterable
        self._passes = 0

    def __len__(self) -> int:
        length = known_length(self._source)
        if length is None:
            raise UnknownLengthError(f"a {type(self._source).__name__} does not know its length")
        return length

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DatapointError: a later pass over a one-shot iterator yields nothing. (tensorpack's pass is then silently
                empty, and a repeated one never ends.)
        """
        iterator = self._start()
        one_shot = iterator is self._source
        self._passes += 1
        empty = True
        for datapoint in iterator:
            empty = False
            yield datapoint
        if empty and one_shot and self._passes > 1:
            raise DatapointError(
                f"pass {self._passes} over a {type(self._source).__name__} yields nothing: it runs once and is spent."
                " Return something that iter() starts afresh: a list, or an object whose __iter__ does"
            )

    def _start(self) -> Iterator[Datapoint]:
        return iter(self._source)


class DataFromGenerator(DataFromIterable):
    """The datapoints of any iterable, or of what a function returns; the function is called for every pass."""

    def __init__(self, gen: Iterable[Datapoint] | Callable[[], Iterable[Datapoint]]) -> None:
        """Take an iterable, or a callable that returns one: a generator *function* repeats, a generator does not.

        Raises:
            ConfigError: it is neither.
        """
        super().__init__(() if callable(gen) else gen)
        self._source = gen

    def __len__(self) -> int:
        if callable(self._source):
            raise UnknownLengthError(f"a {type(self._source).__name__} does not know its length")
        return super().__len__()

    def _start(self) -> Iterator[Datapoint]:
        return iter(self._source() if callable(self._source) else self._source)


# The family of streams that items of FakeData come from: one that nothing else is likely to name.
_ITEMS = 0x46616B6544617461


class FakeData(RNGDataFlow):
    """Random arrays of given shapes, for tests and for measuring everything but the data."""

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        size: int = 1000,
        random: bool = True,
        dtype: Any = "float32",
        domain: Any = (0, 1),
    ) -> None:
        """Describe the datapoints: lists with one ndarray for each of ``shapes``.

        Args:
            shapes: the shape of each component; ``()`` gives a 0-d array.
            size: datapoints in a pass.
            random: draw every datapoint; else one per pass, handed out again and again (the arrays are then shared).
            dtype: one dtype for all components, or a list with one for each.
            domain: a tuple (lowest, upper bound), uniform, for all components, or a list with one such tuple for each.

        Raises:
            ConfigError: a list of dtypes or domains of another length than ``shapes``.
        """
        self.shapes = shapes
        self.random = random
        self.dtype = list(dtype) if isinstance(dtype, (list, tuple)) else [dtype] * len(shapes)
        self.domain = domain if isinstance(domain, list) else [domain] * len(shapes)
        self._size = int(size)
        for name, given in (("dtypes", self.dtype), ("domains", self.domain)):
            if len(given) != len(shapes):
                raise ConfigError(
                    f"FakeData has {len(shapes)} shapes but {len(given)} {name}: give one, or one for each"
                )

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index``: always the same arrays, in every process and run, and others than those of a pass.

        If not ``random``, all items are alike. IndexError outside. Needs no ``reset_state()``.
        """
        place = place_of(index, self._size)
        rng = PhiloxState(0)  # made here, for threads may ask at the same time
        rng.jump(_ITEMS, place if self.random else 0)
        return self._draw(rng)

    def __iter__(self) -> Iterator[list[Any]]:
        fixed = None if self.random else self._draw(self.rng)
        for _ in range(self._size):
            yield self._draw(self.rng) if fixed is None else list(fixed)

    def _draw(self, rng: np.random.RandomState) -> list[Any]:
        return [
            np.asarray(rng.uniform(low, high, tuple(shape))).astype(dtype)
            for shape, dtype, (low, high) in zip(self.shapes, self.dtype, self.domain, strict=True)
        ]
