"""Owns what every worker process does first: forget what a fork copied of generators, threads and memory habits."""

from __future__ import annotations

import os
import random
import sys

import numpy as np

from dfserve.dataflow.global_rng import torchs_generator
from dfserve.dataflow.rng import Place, move_on, take_place
from dfserve.memory import keep_large_blocks

_seed_of_torch: int | None = None  # of this worker, until torch is there to be given it


def start_afresh(place: Place) -> None:
    """Become the worker at ``place``: its random numbers, also of the global generators, are nobody else's."""
    global _seed_of_torch
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
    _seed_of_torch = int(state[0]) << 32 | int(state[1])
    settle_torch()


def settle_torch() -> None:
    """Do as much for torch, once in a worker, if it is loaded by now: a pipeline that was just built may have done so.

    Its pool of threads (OpenMP's) does not survive a fork either: a worker that calls into it waits for ever. One
    thread is also what DataLoader gives its workers. A fork copies the generator, so that all workers would draw
    alike.
    """
    global _seed_of_torch
    generator = torchs_generator()
    if generator is not None and _seed_of_torch is not None:
        sys.modules["torch"].set_num_threads(1)
        generator.manual_seed(_seed_of_torch)
        _seed_of_torch = None
