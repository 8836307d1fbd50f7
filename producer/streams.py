"""Owns the random numbers of one item: every generator that its making may draw from, set to a stream of that item.

A stream is named by the epoch's key, the item's index and a number for the generator, so that an item comes out alike
whoever makes it, and whatever was made before. That asks for numbers which do not depend on a process's history:

- What ``reset_state()`` of the pipeline makes, and what its functions refer to, is numbered in that order.
- An augmentor asks for its generator when it first draws, and gets the next number of this item. So it makes no
  difference who else uses the augmentor, or when it was made.
- What a function makes with ``get_rng`` in the middle of an item gets the lowest number that is free. So one that
  lives for an item only has the same number in all. If several that live on are made, in an order that depends on the
  items, their numbers do too: make them in ``reset_state()``.
- What else ``get_rng`` has made and neither a DataFlow nor an augmentor has, a generator of a module say, is numbered
  by its age, among those of all pipelines of the process.

The global generators of numpy, of ``random`` and of torch, if that is loaded, are seeded too, which takes 7 us an item:
so not before they were drawn from, upon which the split in which that was seen is made again. What is none of these, a
``numpy.random.default_rng()`` of the user's own say, is not seen here, and draws on from item to item. Nor are other
threads held up: what those of a stream draw from a global generator, until their queues are full, an item does without.
"""

from __future__ import annotations

import ctypes
import random
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.global_rng import seed_globals, torchs_generator
from dfserve.dataflow.rng import PhiloxState, living, made_by

# Where the numbers of each kind of generator begin, in the low 24 bits; above them is the part of the item.
_LATE, _OTHERS, _LENT = 1 << 21, 1 << 22, 1 << 23
_PART = 24
_WORD = (1 << 64) - 1
_MT19937_BYTES = 4 * 625


class ItemStreams:
    """The generators of one pipeline, in one process.

    Attributes:
        needed: there is something to set for each item.
    """

    def __init__(self, seed_globals: bool, undrawn: object = None) -> None:
        """Know none yet.

        Args:
            seed_globals: the pipeline has code that may draw from the global generators.
            undrawn: a DataFlow that draws from its generator for the order of its passes only, and never for an item.
        """
        self._watch_globals = seed_globals
        self._seed_globals = False  # before something drew from them
        self._seen: Any = (
            None  # the global generators' states at the beginning of a run, or at the end of the one before
        )
        self._seen_before = False  # the latter: who draws between two runs is noticed too, and costs one run
        self._alone = True  # nobody was seen to do that
        self._undrawn = undrawn
        self._fixed: list[PhiloxState] = []
        self._late = _Numbered(_LATE)
        self._others = _Numbered(_OTHERS)
        self._pool: list[PhiloxState] = []  # what is lent to augmentors, again for every item
        self._borrowers: list[Any] = []
        self._fresh = PhiloxState()
        self._stream = (0, 0, 0)
        self.needed = False

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Take for the pipeline's what is made meanwhile, by its ``reset_state()``."""
        self._fixed.clear()
        with _augmentors_set_aside(), made_by(self._make_fixed):
            try:
                yield
            finally:
                self._take_back()

    def adopt(self, found: Iterable[PhiloxState]) -> None:
        """Count generators as the pipeline's that exist already; they may be used elsewhere too."""
        known = {id(rng) for rng in self._fixed}
        self._fixed += [rng for rng in found if id(rng) not in known]

    @contextmanager
    def running(self, *, at_any_cost: bool = False) -> Iterator[None]:
        """Leave all generators afterwards as they were, since other pipelines may draw from them as well.

        Args:
            at_any_cost: seed the global ones for each item from the beginning, since nothing can be made again.

        The global ones are left at new random numbers: to put back the state of numpy's takes 70 us.
        """
        self._seed_globals |= self._watch_globals and at_any_cost
        if self._watch_globals and not self._seed_globals:
            self._seen_before = self._seen is not None
            self._seen = self._seen or _globals_states()
        with _augmentors_set_aside(), made_by(self._make_late):
            self._notice()
            states = [(rng, rng.get_state()) for rng in self._all()]
            self.needed = bool(self._fixed or self._late.found or self._others.found or self._seed_globals)
            try:
                yield
            finally:
                self._take_back()
                for rng, state in states:
                    rng.set_state(state)
                if self._seed_globals:
                    seed_globals(int(self._fresh.tomaxint()))

    def missed(self) -> bool:
        """Tell whether the run is to be made again: it may have drawn from global generators that were not seeded.

        Either somebody did since the end of the run before, and from now on that is told apart; or the run did, and
        from now on they are seeded for its items.
        """
        if self._seed_globals or not self._watch_globals:
            return False
        states = _globals_states()
        drawn = bool(self._seen != states)
        if drawn and self._seen_before:
            self._alone = False
        else:
            self._seed_globals = drawn
        self._seen = states if self._alone else None
        return drawn

    def go_to(self, key: int, index: int, part: int = 0) -> None:
        """Set all generators to the streams of an item.

        Args:
            key: of the epoch.
            index: which item, or which shard.
            part: which datapoint of the shard.
        """
        if self._borrowers:
            self._take_back()
        part <<= _PART
        self._stream = (key, index, part)
        for number, rng in enumerate(self._fixed):
            rng.jump(key, index, part + number)
        for numbered in (self._late, self._others):
            for number, rng in numbered.living() if numbered.found else ():
                rng.jump(key, index, part + number)
        if self._seed_globals:
            seed_globals(_mixed(_mixed(_mixed(key) + index) + part))

    def _make_fixed(self, owner: object) -> PhiloxState:
        if _asks_again(owner):
            return self._lend(owner)
        rng = PhiloxState(0)
        if owner is None or owner is not self._undrawn:
            self._fixed.append(rng)
        return rng

    def _make_late(self, owner: object) -> PhiloxState:
        if _asks_again(owner):
            return self._lend(owner)
        rng = PhiloxState(0)
        self.needed = True
        key, index, part = self._stream
        rng.jump(key, index, part + self._late.number(rng))
        return rng

    def _lend(self, augmentor: Any) -> PhiloxState:
        self.needed = True
        number = len(self._borrowers)
        if number == len(self._pool):
            self._pool.append(PhiloxState(0))
        self._borrowers.append(augmentor)
        rng = self._pool[number]
        key, index, part = self._stream
        rng.jump(key, index, part + _LENT + number)
        return rng

    def _take_back(self) -> None:
        for augmentor in self._borrowers:
            augmentor._rng = None
        self._borrowers.clear()

    def _notice(self) -> None:
        """Number what was made outside, and is no DataFlow's nor augmentor's: a function of ours may draw from it."""
        known = {id(rng) for rng in self._all()}
        for rng in living():
            owner = rng.owner()
            if id(rng) not in known and not isinstance(owner, DataFlow) and not _asks_again(owner):
                self._others.number(rng)

    def _all(self) -> list[PhiloxState]:
        return self._fixed + [rng for _, rng in (*self._late.living(), *self._others.living())]


class _Numbered:
    """Generators under numbers, each until nobody uses it any more.

    Attributes:
        found: they, or what is left of them.
    """

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self.found: dict[int, weakref.ref[PhiloxState]] = {}

    def number(self, rng: PhiloxState) -> int:
        """Give ``rng`` the lowest number that is free."""
        self.found = {number: found for number, found in self.found.items() if found() is not None}
        number = next(number for number in count(self._begin) if number not in self.found)
        self.found[number] = weakref.ref(rng)
        return number

    def living(self) -> list[tuple[int, PhiloxState]]:
        """Return what is still used."""
        return [(number, rng) for number, found in self.found.items() if (rng := found()) is not None]


def _asks_again(owner: Any) -> bool:
    """Tell an augmentor, which calls ``get_rng`` again when its generator is taken from it."""
    return hasattr(owner, "_rng_pid")


@contextmanager
def _augmentors_set_aside() -> Iterator[None]:
    """Take their generators from all augmentors of the process, so that they ask for one, and give them back."""
    found = []
    for rng in living():
        owner = rng.owner()
        if _asks_again(owner) and owner._rng is rng:
            found.append((owner, rng))
            owner._rng = None
    try:
        yield
    finally:
        for owner, rng in found:
            owner._rng = rng


def _globals_states() -> tuple[Any, ...]:
    """Return what tells two states of the global generators apart (12 us, nearly all of it for `random`'s)."""
    torchs = torchs_generator()
    return _numpys_state(), random.getstate(), b"" if torchs is None else bytes(torchs.get_state().numpy())


def _numpys_state() -> Any:
    """Return the state of numpy's global generator, as bytes where it is the usual one: ``get_state()`` takes 60 us."""
    generator = np.random.mtrand._rand._bit_generator  # what np.random.rand draws from
    if type(generator) is not np.random.MT19937:
        return repr(generator.state)
    # The documented address of the C struct: uint32 key[624] and an int, the place in it.
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)


def _mixed(x: int) -> int:
    """Return 64 bits that depend on all of ``x``'s: the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)
