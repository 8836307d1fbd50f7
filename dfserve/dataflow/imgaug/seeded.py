"""Owns calls of other people's random functions that give the same result for the same seed."""

from __future__ import annotations

import inspect
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image

_SEEDS_OF_NUMPY = 1 << 32  # np.random.seed() takes no larger ones

# Held while the process's own generators are at a call's seed; such a call may make another, in the same thread.
_at_a_seed = threading.RLock()


def _fresh_lock() -> None:
    global _at_a_seed
    _at_a_seed = threading.RLock()


# The thread that held the lock does not exist in a forked child.
os.register_at_fork(after_in_child=_fresh_lock)


class SeededCall:
    """A random function of an image, called with a seed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Call ``function(image=img)``, or ``function(img)`` if it has no such parameter."""
        self._function = function
        self._has_state = hasattr(function, "set_random_state")
        self._by_keyword = self._has_state or _takes_keyword(function)
        self._copies = threading.local()

    def __call__(self, seed: int, img: Image) -> Image:
        if self._has_state:
            function = self._copy_of_this_thread()
            function.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311  # images, no secrets
            return self._result(function, img)
        with _generators_at(seed):
            return self._result(self._function, img)

    def _result(self, function: Callable[..., Any], img: Image) -> Image:
        result = function(image=img) if self._by_keyword else function(img)
        image: Image = result["image"] if isinstance(result, Mapping) else result
        return image

    def _copy_of_this_thread(self) -> Any:
        # The function keeps its state in itself: another thread would draw from this one's.
        if not hasattr(self._copies, "function"):
            self._copies.function = deepcopy(self._function)
        return self._copies.function

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_copies"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._copies = threading.local()


@contextmanager
def _generators_at(seed: int) -> Iterator[None]:
    with _at_a_seed:
        of_python, of_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % _SEEDS_OF_NUMPY)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def _takes_keyword(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C
        return False
    if any(p.name == "image" and p.kind is not p.POSITIONAL_ONLY for p in parameters):
        return True
    required = any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return not required and any(p.kind is p.VAR_KEYWORD for p in parameters)
