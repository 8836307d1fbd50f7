"""Owns what every worker process does first: forget what a fork copied of generators, threads and memory habits."""

from __future__ import annotations

import os
import random
import sys

import numpy as np

from dfserve.dataflow.rng import Place, move_on, take_place
from dfserve.memory import keep_large_blocks


def start_afresh(place: Place) -> None:
    """Become the worker at ``place``: its random numbers, also of the global generators, are nobody else's."""
    take_place(place)
    move_on()
    seeds = np.random.SeedSequence(place.seed, spawn_key=place.path if place.seed is not None else ())
    state = seeds.generate_state(4)
    np.random.seed(state)
    random.seed(state.tobytes())
    keep_large_blocks()
    # Several workers with a pool of threads each would fight for the cores, and OpenCV's pool does not survive a fork.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")  # for a pipeline that imports it later
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(0)
