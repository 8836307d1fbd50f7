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

from epochs_key import packed
from epochs_merged import Merged
from epochs_world import Scenario, Step, World


@dataclass(frozen=True)
class Found:
    """What a search came to: how many states, whether these are all, and the shortest way to what is broken."""

    states: int
    whole: bool
    broken: str = ""
    trace: tuple[Step, ...] = ()
    ends: frozenset[Any] = frozenset()


class Search:
    """Every order of events of a scenario, breadth first, so that what is found first is shortest."""

    def __init__(self, scenario: Scenario, kind: type[World] = Merged, *, ample: bool = True) -> None:
        self.scenario = scenario
        self.kind = kind
        self.ample = ample
        self.parents = array("i", [-1])
        self.steps: list[Step] = [()]
        self.edges = (array("i"), array("i"))  # from and to, by steps that break nothing
        self.ends: list[int] = []
        self.every = 0
        self.expanded = 0
        self.quiet: set[bytes] = set()  # see `Compared.quiet`; if asked for
        self.compares = False
        self.told: set[Any] = set()

    def run(self, most: int, until: float = math.inf) -> Found:
        """Go through up to ``most`` states. From each that was gone through, an end must be in reach without faults."""
        first = self.kind(self.scenario)
        gc.freeze()
        gc.set_threshold(20_000, 50, 100_000)
        known = {first.key(): 0}
        queue = deque([(0, packed(first))])
        while queue and len(known) < most and time.monotonic() < until:
            if self.every and not self.expanded % self.every:
                print(f"  {self.expanded} of {len(known)}", flush=True)
            self.expanded += 1
            number, data = queue.popleft()
            world = pickle.loads(data)
            if self.compares:
                self.quiet.add(world.quiet())
            if world.done:
                try:
                    world.check_end()
                except AssertionError as error:
                    return self._found(number, str(error))
                self.ends.append(number)
                self.told.add(tuple(tuple(rank.handed) for rank in world.ranks))
                continue
            calm = world.steps()
            if not calm:
                return self._found(number, "8: nothing can happen, and ranks wait")
            afters: list[tuple[bool, Step, World]] = []
            todo = deque((True, step) for step in calm)
            todo += ((False, step) for step in world.faults())
            while todo:
                is_calm, step = todo.popleft()
                after = pickle.loads(data)
                try:
                    after.step(step)
                except Exception as error:
                    self.parents.append(number)
                    self.steps.append(step)
                    return self._found(len(self.parents) - 1, f"{type(error).__name__}: {error}")
                if self.ample and after.alone(step):
                    afters = [(True, step, after)]
                    break
                if after.many and not after.single:
                    todo.append((is_calm, ("single", *step)))
                afters.append((is_calm, step, after))
            for is_calm, step, after in afters:
                key = after.key()
                there = known.setdefault(key, len(known))
                if there == len(self.parents):
                    self.parents.append(number)
                    self.steps.append(step)
                    queue.append((there, packed(after)))
                if is_calm:
                    self.edges[0].append(number)
                    self.edges[1].append(there)
        stuck = self._stuck([number for number, _ in queue])
        if stuck is not None:
            return self._found(stuck, "8: no end is in reach from here")
        return Found(len(known), not queue, ends=frozenset(self.told))

    def _stuck(self, unexplored: list[int]) -> int | None:
        before: list[list[int]] = [[] for _ in self.parents]
        for first, last in zip(*self.edges, strict=True):
            before[last].append(first)
        fine = bytearray(len(self.parents))
        todo = [*self.ends, *unexplored]
        for number in todo:
            fine[number] = 1
        while todo:
            for number in before[todo.pop()]:
                if not fine[number]:
                    fine[number] = 1
                    todo.append(number)
        number = fine.find(0)
        return None if number < 0 else number

    def _found(self, number: int, broken: str) -> Found:
        states, trace = len(self.parents), []
        while number > 0:
            trace.append(self.steps[number])
            number = self.parents[number]
        return Found(states, False, broken, tuple(reversed(trace)))
