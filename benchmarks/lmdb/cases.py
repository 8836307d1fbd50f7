"""Owns what is saved: two kinds of datapoint, so many of them that the file has a given size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TOKENS = 512  # int32: 2 kB


def jpegs(photos: Sequence[Path], nbytes: float) -> list[Any]:
    """Return encoded photographs and labels: the largest quarter of the files, over and over."""
    files = sorted(photos, key=lambda file: file.stat().st_size)[-max(1, len(photos) // 4) :]
    encoded = [np.fromfile(file, np.uint8) for file in files]
    count = max(1, round(nbytes / (sum(map(len, encoded)) / len(encoded))))
    return [[encoded[number % len(encoded)], number] for number in range(count)]


def small(_: Sequence[Path], nbytes: float) -> list[Any]:
    """Return sequences of a language model's tokens and labels, each another one."""
    count = max(1, round(nbytes / (TOKENS * 4)))
    tokens = np.random.RandomState(0).randint(0, 50_000, (count, TOKENS)).astype(np.int32)
    return [[row, number] for number, row in enumerate(tokens)]


@dataclass(frozen=True)
class Case:
    """One kind of datapoint.

    Attributes:
        title: as the table shows it.
        make: makes the datapoints, from JPEG files and for so many bytes of arrays.
    """

    title: str
    make: Callable[[Sequence[Path], float], list[Any]]


CASES = {"jpegs": Case("[uint8 jpeg, int]", jpegs), "small": Case("[int32 512, int]", small)}
