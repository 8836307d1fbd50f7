"""Owns the measuring of images that a consumer receives, each of which it looks at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.counting import cpu_seconds
from benchmarks.rounds import Figures

WARM_UP = 2.0  # seconds from the first image on that do not count, or less where less is measured
CACHE_LINE = 64  # bytes


def warm_up_of(seconds: float) -> float:
    """Return how long to warm up before measuring for ``seconds``."""
    return min(WARM_UP, seconds)


def touch(images: np.ndarray[Any, Any]) -> int:
    """Look at a byte in every cache line, as a step that uses the images would; return how many images there are."""
    images.reshape(-1)[::CACHE_LINE].sum()
    return images.shape[0] if images.ndim == 4 else 1


def received(images: Iterator[Any], seconds: float) -> Figures:
    """Count what comes for ``seconds``, after the warm-up, which begins with the first image."""
    touch(next(images))
    take(images, warm_up_of(seconds))
    own, workers = cpu_seconds()
    items, elapsed = take(images, seconds)
    own_after, workers_after = cpu_seconds()
    return {"items": items, "seconds": elapsed, "cpu_s": own_after - own, "workers_cpu_s": workers_after - workers}


def take(images: Iterator[Any], seconds: float) -> tuple[int, float]:
    """Take images for a time, and one in any case; return how many and how long it took."""
    items, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not items:
        items += touch(next(images))
    return items, elapsed
