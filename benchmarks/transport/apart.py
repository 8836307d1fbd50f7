"""Owns batches that a rival sends in place of datapoints: how large they are, and how they become datapoints again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

BATCH = 64  # datapoints: a common batch of images


def apart(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the datapoints of batches, as views: what a step that wants single datapoints has to do."""
    for parts in batches:
        for datapoint in zip(*parts, strict=True):
            yield list(datapoint)
