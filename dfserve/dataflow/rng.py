"""Owns random number generators: a fresh stream for every generator in every process, reproducible from one seed.

A stream is named by the seed, by the *place* of the process (which worker of which operator of which process) and by
how many generators the process made before. So one seed repeats a whole run, and no two workers draw alike.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfserve.dataflow.locks_at_forks import hold_at_forks
from dfserve.errors import ConfigError

_WORD = (1 << 64) - 1


class PhiloxState(np.random.RandomState):
    """``RandomState``, methods and all, over the counter-based Philox generator, which is reseeded in about 1.5 us.

    That is as much as ``RandomState.seed(int)`` costs, a seventh of making a new generator, and any (key, counter) is a
    stream of its own without hashing. Algorithm: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.

    Attributes:
        owner: refers weakly to what asked ``get_rng`` for it, and to nothing where that cannot be referred to.
    """

    owner: Callable[[], Any] = staticmethod(lambda: None)

    def __init__(self, seed: Any = None) -> None:
        """Start from ``seed``: an int, a ``SeedSequence``, or None for the operating system's entropy."""
        super().__init__(np.random.Philox(seed))
        self._key = np.zeros(2, np.uint64)
        self._counter = np.zeros(4, np.uint64)
        self._state = {
            "bit_generator": "Philox",
            "state": {"counter": self._counter, "key": self._key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,  # nothing of the buffer is left
            "has_uint32": 0,
            "uinteger": 0,
            "has_gauss": 0,
            "gauss": 0.0,
        }

    def jump(self, key: int, high: int, low: int = 0) -> None:
        """Go to the beginning of the stream that three numbers of 64 bits name; others are 2**128 draws away.

        Args:
            key: which family of streams, e.g. a seed and an epoch hashed once.
            high: which stream of it, e.g. an item's index.
            low: which part of it, e.g. the place of the generator in its pipeline.
        """
        self._key[0] = key & _WORD
        self._counter[2] = low & _WORD
        self._counter[3] = high & _WORD
        self.set_state(self._state)

    def seed(self, seed: Any = None) -> None:
        """Start again from ``seed``, as ``RandomState.seed`` does (with other numbers than its Mersenne twister's)."""
        self.set_state(np.random.RandomState(np.random.Philox(seed)).get_state(legacy=False))

    def get_state(self, legacy: bool = False) -> Any:  # noqa: ARG002  # as RandomState's
        """Return the state as a dict, for ``set_state``. There is no legacy form: that is for Mersenne twisters."""
        return super().get_state(legacy=False)

    def __reduce__(self) -> Any:
        return _restored, (self.get_state(),)

    def __deepcopy__(self, _memo: Any) -> PhiloxState:
        return _restored(self.get_state())

    def __copy__(self) -> PhiloxState:
        return _restored(self.get_state())


def _restored(state: dict[str, Any]) -> PhiloxState:
    rng = PhiloxState(0)
    rng.set_state(state)
    return rng


@dataclass(frozen=True)
class Place:
    """Where in the tree of processes a process stands, and the seed it was given: what a worker is told at its start.

    Attributes:
        seed: of the whole run; None where every generator is to be different in every run.
        path: for each process from the outermost on: which pool of workers it started, and which worker of the pool.
    """

    seed: int | None = None
    path: tuple[int, ...] = ()


_place = Place()
# What get_rng made, by the order: a forked child has copies of them, which must not draw what their parent draws.
_MADE: weakref.WeakValueDictionary[int, PhiloxState] = weakref.WeakValueDictionary()
_births: Iterator[int] = itertools.count()
_made: Iterator[int] = itertools.count()  # generators made here since the seed was set
_pools: Iterator[int] = itertools.count()  # pools of workers started here since then
# What answers get_rng instead: the last. A test may serve two pipelines in two threads, which end in any order.
_makers: list[Callable[[object], PhiloxState]] = []


def fix_rng_seed(seed: int) -> None:
    """Make what is random from now on, in this process and in the workers that it starts, the same in every run.

    Generators stay different from each other, and workers from each other. (tensorpack's function makes all of them
    start alike, so that every worker yields the same "random" crops.) Call it before ``reset_state()``.

    Args:
        seed: an integer that is not negative.

    Raises:
        ConfigError: ``seed`` is negative.
    """
    if seed < 0:
        raise ConfigError(f"the seed is {seed}: it must not be negative")
    take_place(Place(int(seed), _place.path))


def get_rng(_obj: object = None) -> PhiloxState:
    """Return a generator whose stream no other process and no other call shares.

    Seeded by the operating system's entropy at the time of the call (so after a fork too), or, after ``fix_rng_seed``,
    by the seed, the process's place and the number of calls before.

    Args:
        _obj: whose it is to be; it makes no difference to the numbers. (tensorpack mixes it into the seed.)
    """
    if _makers:
        return _makers[-1](_obj)
    rng = PhiloxState(_seed_of(next(_made)))
    with suppress(TypeError):  # not every object can be referred to weakly
        rng.owner = weakref.ref(_obj)
    _MADE[next(_births)] = rng
    return rng


@contextmanager
def made_by(maker: Callable[[object], PhiloxState]) -> Iterator[None]:
    """Have ``maker``, called with the owner, answer ``get_rng`` in this process meanwhile."""
    _makers.append(maker)
    try:
        yield
    finally:
        with suppress(ValueError):  # in a child that was forked meanwhile
            _makers.remove(maker)


def living() -> list[PhiloxState]:
    """Return what ``get_rng`` made itself in this process, or before the fork, and is still used; the oldest first."""
    return [rng for _, rng in sorted(_MADE.items())]


def _seed_of(number: int) -> np.random.SeedSequence | None:
    return None if _place.seed is None else np.random.SeedSequence(_place.seed, spawn_key=(*_place.path, number))


def worker_places(count: int) -> list[Place]:
    """Return a place for each worker of a pool that this process is about to start."""
    pool = next(_pools)
    return [Place(_place.seed, (*_place.path, pool, worker)) for worker in range(count)]


def seed_of_run() -> int | None:
    """Return what ``fix_rng_seed`` was called with, or None."""
    return _place.seed


def take_place(place: Place) -> None:
    """Become the process at ``place``: what a worker does first, before anything in it makes a generator."""
    global _place, _made, _pools
    _place, _made, _pools = place, itertools.count(), itertools.count()


def move_on() -> None:
    """Give the generators that a forked child has inherited streams of its own."""
    for rng in living():
        rng.seed(_seed_of(next(_made)))


def _move_away() -> None:
    # A child that nobody gave a place to: forked by a program of the user's, or by another library.
    _makers.clear()
    if _place.seed is not None:
        take_place(Place(_place.seed, (*_place.path, os.getpid())))
    move_on()


def _locks() -> list[Any]:
    """Return what is held while somebody draws from the generators that a child sets, numpy's global one too."""
    return [rng._bit_generator.lock for rng in (*living(), np.random.mtrand._rand)]


hold_at_forks(_locks)
os.register_at_fork(after_in_child=_move_away)
