"""Owns what is sent: an indexable source that gives the same arrays again and again at no cost, in two sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfserve.dataflow import DataFlow

ITEMS = 1 << 24  # of an epoch, which no run comes to the end of


class Repeated(DataFlow):
    """Items that share one array, each with its number."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> list[Any]:
        return [self._array, index]

    def __iter__(self) -> Iterator[list[Any]]:
        for index in range(ITEMS):
            yield [self._array, index]


def images() -> Repeated:
    """Return augmented photographs and labels."""
    return Repeated(np.random.RandomState(0).randint(0, 256, (224, 224, 3), np.uint8))


def sequences() -> Repeated:
    """Return sequences of a language model's tokens and labels."""
    return Repeated(np.random.RandomState(0).randint(0, 50_000, 512).astype(np.int32))


@dataclass(frozen=True)
class Case:
    """One kind of datapoint.

    Attributes:
        title: as the table shows it.
        factory: what `dfserve produce` is given.
        aim: the share of the stream's rate that is wanted of the strict order.
        stride: datapoints that the consumer takes between two looks at the clock.
    """

    title: str
    factory: str
    aim: float
    stride: int


CASES = {
    "images": Case("[uint8 224x224x3, int]", "benchmarks.guarantee.cases:images", 0.95, 8),
    "sequences": Case("[int32 512, int]", "benchmarks.guarantee.cases:sequences", 0.9, 256),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "stream": {},
    "strict": {"mode": "epochs", "order": "strict"},
    "arrival": {"mode": "epochs"},
}
