"""Owns what is sent over which link: datapoints that all differ, since compression would find one that comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 224  # pixels of an image's edge
IMAGES = 256  # datapoints that differ: 38 MB, many times what any codec looks back
SEQUENCES, LENGTH = 4096, 512  # tokens: 8 MB
VOCABULARY, FLAT = 50_000, 2.7  # Zipf's law as Mandelbrot wrote it: the n-th token's share is that of 1 / (n + 2.7)
SEED = 1  # the same data in each process


def images(files: Sequence[str]) -> list[list[Any]]:
    """Return photographs, decoded and scaled, each with its label."""
    import cv2

    chosen = [files[number * len(files) // IMAGES] for number in range(IMAGES)] if len(files) > IMAGES else list(files)
    read = (cv2.imread(file, cv2.IMREAD_COLOR) for file in chosen)
    return [[cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), 7] for image in read]


def tokens(_files: Sequence[str]) -> list[list[Any]]:
    """Return sequences of tokens as frequent as those of a language, drawn one by one, each with its label."""
    shares = 1 / (np.arange(VOCABULARY) + FLAT)
    drawn = np.random.RandomState(SEED).choice(VOCABULARY, (SEQUENCES, LENGTH), p=shares / shares.sum())
    return [[sequence, 7] for sequence in drawn.astype(np.int32)]


def noise(_files: Sequence[str]) -> list[list[Any]]:
    """Return images of noise, which no codec makes smaller, each with its label."""
    rng = np.random.RandomState(SEED)
    return [[rng.randint(0, 256, (SIDE, SIDE, 3), np.uint8), 7] for _ in range(IMAGES)]


@dataclass(frozen=True)
class Case:
    """Data and a link.

    Attributes:
        title: as the table shows it.
        make: makes the datapoints, from JPEG files.
        nbytes: of one datapoint's arrays.
        stride: datapoints that the consumer takes between two looks at the clock.
        megabits: of the link, per second.
    """

    title: str
    make: Callable[[Sequence[str]], list[list[Any]]]
    nbytes: int
    stride: int
    megabits: int


_PIXELS = SIDE * SIDE * 3
CASES = {
    "image_1gbit": Case("photographs, uint8 224x224x3, 1 Gbit/s", images, _PIXELS, 8, 1000),
    "image_100mbit": Case("photographs, uint8 224x224x3, 100 Mbit/s", images, _PIXELS, 1, 100),
    "tokens_1gbit": Case("tokens, int32 512, 1 Gbit/s", tokens, LENGTH * 4, 64, 1000),
    "tokens_100mbit": Case("tokens, int32 512, 100 Mbit/s", tokens, LENGTH * 4, 64, 100),
    "noise_1gbit": Case("noise, uint8 224x224x3, 1 Gbit/s", noise, _PIXELS, 8, 1000),
}


class Source:
    """The datapoints, again and again; a DataFlow."""

    def __init__(self, datapoints: list[list[Any]]) -> None:
        self._datapoints = datapoints

    def reset_state(self) -> None:
        """Do nothing: there is no state."""

    def __len__(self) -> int:
        return len(self._datapoints)

    def __iter__(self) -> Iterator[list[Any]]:
        return map(list, self._datapoints)


def source_of(case: str, listing: Path) -> Source:
    """Return what a producer sends; ``listing``: a file with the names of JPEG files, a line each."""
    return Source(CASES[case].make(listing.read_text().splitlines()))
