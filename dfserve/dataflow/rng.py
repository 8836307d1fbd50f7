"""Owns random number generators: a fresh stream for every process and every reset, or one fixed seed for debugging."""

from __future__ import annotations

import numpy as np

_fixed_seed: int | None = None


def fix_rng_seed(seed: int) -> None:
    """Make every generator that ``get_rng`` returns from now on in this process start from ``seed``.

    For debugging, as tensorpack's: *all* generators start alike, those of forked workers too, so workers that run
    copies of one pipeline then produce the same datapoints.

    Args:
        seed: an integer in [0, 2**32).
    """
    global _fixed_seed
    _fixed_seed = int(seed)


def get_rng(_obj: object = None) -> np.random.RandomState:
    """Return a generator whose stream no other process and no other call shares.

    Seeded by the operating system's entropy at the time of the call (so after a fork too), or by ``fix_rng_seed``.

    Args:
        _obj: not used. tensorpack mixes it into the seed; entropy makes that unnecessary, and calls stay valid.
    """
    return np.random.RandomState(_fixed_seed)
