"""Owns the seeds that transforms keep in place of many random numbers: few bytes, and the numbers fit any image."""

from __future__ import annotations

import numpy as np

_SEEDS = 1 << 62  # so many seeds: two draws of a whole training run are not alike, and it fits an int64


def draw_seed(rng: np.random.RandomState) -> int:
    """Draw a seed."""
    return int(rng.randint(_SEEDS, dtype=np.int64))


def generator(seed: int) -> np.random.Generator:
    """Return a generator that gives the same numbers for the same seed; SFC64 is numpy's fastest."""
    return np.random.Generator(np.random.SFC64(seed))
