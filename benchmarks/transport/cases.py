"""Owns what is sent: three kinds of datapoint, and a source that yields the same one again and again at no cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

PASS = 1000  # datapoints in a pass, as in FakeData; senders repeat it for ever


def image() -> list[Any]:
    """One augmented photograph and its label."""
    return [np.random.RandomState(0).randint(0, 256, (224, 224, 3), np.uint8), 7]


def batch() -> list[Any]:
    """A batch that was made on the data machine: 64 normalised photographs and their labels."""
    rng = np.random.RandomState(0)
    return [rng.standard_normal((64, 224, 224, 3)).astype(np.float32), np.arange(64, dtype=np.int64)]


def tokens() -> list[Any]:
    """One sequence of a language model's tokens and its label."""
    return [np.random.RandomState(0).randint(0, 50_000, 512).astype(np.int32), 7]


@dataclass(frozen=True)
class Case:
    """One kind of datapoint.

    Attributes:
        title: as the table shows it.
        make: makes the datapoint.
        stride: datapoints that the consumer takes between two looks at the clock, so that looking costs nothing.
    """

    title: str
    make: Callable[[], list[Any]]
    stride: int

    @property
    def nbytes(self) -> int:
        """Bytes of one datapoint's arrays."""
        return sum(part.nbytes for part in self.make() if isinstance(part, np.ndarray))


CASES = {
    "image": Case("[uint8 224x224x3, int]", image, 8),
    "batch": Case("[float32 64x224x224x3, int64 64]", batch, 1),
    "tokens": Case("[int32 512, int]", tokens, 64),
}


class Source:
    """An endless supply of one datapoint. It is a DataFlow to tensorpack and to dfserve, and none of either's classes.

    Every datapoint is a fresh list around the same arrays, as from `FakeData(random=False)`.
    """

    def __init__(self, datapoint: list[Any]) -> None:
        self._datapoint = datapoint

    def reset_state(self) -> None:
        """Do nothing: there is no state."""

    def __len__(self) -> int:
        return PASS

    def __iter__(self) -> Iterator[list[Any]]:
        for _ in range(PASS):
            yield list(self._datapoint)
