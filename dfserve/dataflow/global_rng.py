"""Owns the generators that belong to a whole process: numpy's, that of `random`, and torch's where it is loaded."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
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


class _States:
    """Where all of them stand."""

    def __init__(self) -> None:
        self._numpys, self._randoms = np.random.get_state(), random.getstate()
        torchs = torchs_generator()
        self._torchs = None if torchs is None else torchs.get_state()

    def restore(self) -> None:
        """Go back there; torch's, if it was loaded since, to where all of them begin."""
        np.random.set_state(self._numpys)
        random.setstate(self._randoms)
        if (torchs := torchs_generator()) is not None:
            torchs.manual_seed(ALIKE) if self._torchs is None else torchs.set_state(self._torchs)


class _LoadsTorch:
    """Finds torch's module, and seeds its generator once that is loaded: by itself it begins anywhere."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002  # as importlib calls it
        """Return the spec that the other finders find; None for every other module."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loads = spec.loader.exec_module

            def load(module: ModuleType) -> None:
                loads(module)
                if (torchs := torchs_generator()) is not None:
                    torchs.manual_seed(ALIKE)

            spec.loader.exec_module = load  # type: ignore[method-assign]  # of this loader, which is for torch alone
        return spec


_left: _States | None = None  # where the imports of the user's modules have left them: one may seed them itself


@contextmanager
def drawing_alike(*, importing: bool = False) -> Iterator[None]:
    """Let what is drawn in the ``with`` block be the same in every process of every machine; then go on as before.

    For the user's modules and factories, which run in many processes: a `random_split` in them must not give each of
    them another split, of which one worker would validate what another trains on.

    Args:
        importing: the block imports modules; what they leave, a seed of their own say, is where later blocks begin.
    """
    global _left
    before, loads_torch = _States(), _LoadsTorch()
    if _left is None:
        seed_globals(ALIKE)
    else:
        _left.restore()
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, loads_torch)
    try:
        yield
    finally:
        if loads_torch in sys.meta_path:
            sys.meta_path.remove(loads_torch)
        if importing:
            _left = _States()
        before.restore()
