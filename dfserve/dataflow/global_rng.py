"""Owns the generators that belong to a whole process: numpy's, that of `random`, and torch's where it is loaded."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_SEEDS_OF_NUMPY = 0xFFFFFFFF  # np.random.seed() takes 32 bits
ALIKE = 0  # any number does, that is the same everywhere


def torchs_generator() -> Any:
    """Return torch's generator for the CPU; None if torch is not loaded, or only half."""
    # Not torch.manual_seed: that one seeds every accelerator too, which takes 300 us.
    return getattr(sys.modules.get("torch"), "default_generator", None)


def seed_globals(seed: int) -> None:
    """Start all of them from a number of 64 bits."""
    # Measured: numpy's takes 2 us (9 with more than 32 bits), random's 4, torch's 1.
    np.random.seed(seed & _SEEDS_OF_NUMPY)
    random.seed(seed)
    if (torchs := torchs_generator()) is not None:
        torchs.manual_seed(seed)


@contextmanager
def drawing_alike() -> Iterator[None]:
    """Let what is drawn in the ``with`` block be the same in every process of every machine; then go on as before.

    For the user's module and factory, which run in many processes: a `random_split` in them must not give each of them
    another split, of which one worker would validate what another trains on.
    """
    numpys, pythons, torchs = np.random.get_state(), random.getstate(), torchs_generator()
    torchs_state = None if torchs is None else torchs.get_state()
    seed_globals(ALIKE)
    try:
        yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
        if torchs is not None:
            torchs.set_state(torchs_state)
