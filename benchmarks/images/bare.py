"""Owns the plain loops: the work on one image again and again, with dfserve's or tensorpack's augmentors."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.images.work import Augment
from benchmarks.loops import looped
from benchmarks.rounds import Figures


def measure(package: str, files: Sequence[str], processes: int, seconds: float) -> Figures:
    """Count what the loops do with the augmentors of ``package``."""
    return looped(maker, (package, files), processes, seconds)


def maker(package: str, files: Sequence[str]) -> Callable[[], Any]:
    """Return a function that makes one image."""
    augment = Augment(importlib.import_module(f"{package}.dataflow").imgaug)
    augment.reset_state()
    return lambda: augment((random.choice(files), 7))[0]
