"""Owns the search over every order of events of a small world, breadth first."""

from __future__ import annotations

import gc
import math
import pickle
import time
from array import array
from collections import deque
from dataclasses import dataclass
from typing import Any

from epochs_compared import Compared
from epochs_key import packed
from epochs_merged import Merged
from epochs_peers import Scenario, Step

Way = tuple[bool, Step, Any]  # whether it breaks nothing, the step, the world after it


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        states: how many it saw.
        whole: these are all, and it went through each of them.
        broken, trace: what does not hold, and the shortest way to it.
        ends: what the ranks had handed out at the ends.
    """

    states: int
    whole: bool
    broken: str = ""
    trace: tuple[Step, ...] = ()
    ends: frozenset[Any] = frozenset()


class _BrokenAt(Exception):  # it ends the search
    """Something does not hold in a state."""


class Search:
    """Every order of events of a scenario, so that what is found first is shortest.

    Attributes:
        quiet: what `Compared.quiet` said of each state, if ``compares`` is set.
        every: after so many states say how far it is; 0: never.
    """

    def __init__(self, scenario: Scenario, kind: type[Compared] = Merged) -> None:
        self.scenario = scenario
        self.kind = kind
        self.compares = False
        self.every = 0
        self.quiet: set[bytes] = set()
        self._known: dict[bytes, int] = {}
        self._queue: deque[tuple[int, bytes]] = deque()
        self._parents = array("i", [-1])
        self._steps: list[Step] = [()]
        self._edges = (array("i"), array("i"))  # from and to, by steps that break nothing
        self._ends: list[int] = []
        self._handed: set[Any] = set()

    def run(self, most: int, until: float = math.inf) -> Found:
        """Go through up to ``most`` states, until so many seconds of this process.

        From each state that was gone through an end must be in reach without faults.
        """
        gc.freeze()
        gc.set_threshold(20_000, 50, 1000)  # worlds are circles; what is kept of them is not
        try:
            return self._run(most, until)
        except _BrokenAt as error:
            return self._found(*error.args)
        finally:
            gc.set_threshold(700, 10, 10)
            gc.unfreeze()

    def _run(self, most: int, until: float) -> Found:
        first = self.kind(self.scenario)
        self._known[first.key()] = 0
        self._queue.append((0, packed(first)))
        while self._queue and len(self._known) < most and time.process_time() < until:
            through = len(self._known) - len(self._queue)
            if self.every and not through % self.every:
                print(f"  {through} of {len(self._known)}", flush=True)
            self._go_on(*self._queue.popleft())
        self._look_for_traps()
        return Found(len(self._known), not self._queue, ends=frozenset(self._handed))

    def _go_on(self, number: int, data: bytes) -> None:
        """Take every step from one state."""
        world: Compared = pickle.loads(data)
        if self.compares:
            self.quiet.add(world.quiet())
        if world.done:
            self._end(number, world)
            return
        for is_calm, step, after in self._ways(number, data, world):
            key = after.key()
            there = self._known.setdefault(key, len(self._known))
            if there == len(self._parents):
                self._parents.append(number)
                self._steps.append(step)
                self._queue.append((there, packed(after)))
            if is_calm:
                self._edges[0].append(number)
                self._edges[1].append(there)

    def _end(self, number: int, world: Compared) -> None:
        try:
            world.check_end()
        except AssertionError as error:
            raise _BrokenAt(number, str(error)) from None
        self._ends.append(number)
        self._handed.add(tuple(tuple(rank.handed) for rank in world.ranks))

    def _ways(self, number: int, data: bytes, world: Compared) -> list[Way]:
        calm = world.steps()
        if not calm:
            raise _BrokenAt(number, "8: nothing can happen, and ranks wait")
        found: list[Way] = []
        for step in calm:
            ways = self._done(number, data, step, is_calm=True)
            if _alone(ways):
                return ways
            found += ways
        for step in world.faults():
            found += self._done(number, data, step, is_calm=False)
        return found

    def _done(self, number: int, data: bytes, step: Step, *, is_calm: bool) -> list[Way]:
        """Take a step; where several messages come of it, the broker takes them in together, and also one by one."""
        found: list[Way] = []
        for each in (step, ("single", *step)):
            after: Compared = pickle.loads(data)
            try:
                after.step(each)
            except Exception as error:
                self._parents.append(number)
                self._steps.append(each)
                raise _BrokenAt(len(self._parents) - 1, f"{type(error).__name__}: {error}") from error
            found.append((is_calm, each, after))
            if not after.many:
                break
        return found

    def _look_for_traps(self) -> None:
        before: list[list[int]] = [[] for _ in self._parents]
        for first, last in zip(*self._edges, strict=True):
            before[last].append(first)
        fine = bytearray(len(self._parents))
        todo = [*self._ends, *(number for number, _ in self._queue)]
        for number in todo:
            fine[number] = 1
        while todo:
            for number in before[todo.pop()]:
                if not fine[number]:
                    fine[number] = 1
                    todo.append(number)
        if (number := fine.find(0)) >= 0:
            raise _BrokenAt(number, "8: no end is in reach from here")

    def _found(self, number: int, broken: str) -> Found:
        states, trace = len(self._known), []
        while number > 0:
            trace.append(self._steps[number])
            number = self._parents[number]
        return Found(states, False, broken, tuple(reversed(trace)))


def _alone(ways: list[Way]) -> bool:
    """Tell whether a step may be thought to come before all others."""
    _, step, after = ways[0]
    return len(ways) == 1 and after.alone(step)
