"""Every order of events in small worlds, chance in larger ones, and broken brokers that both must notice.

``python tests/broker/test_epochs_search.py chance FIRST LAST`` tries seeds, ``... every STATES`` searches further;
``DFSERVE_STATES`` and ``DFSERVE_SEEDS`` do so under pytest.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import epochs_mutants
import epochs_world as w
import pytest
from epochs_search import Search


STATES = int(os.environ.get("DFSERVE_STATES", "2500"))  # of each small world
SEEDS = int(os.environ.get("DFSERVE_SEEDS", "5000"))
FAULTS = ["expire", "suspect", "cutw", "die", "cut", "crash", "reload", "resume", "leave", "again"]


def _once(*kinds: str) -> tuple[tuple[str, int], ...]:
    return tuple((kind, 1) for kind in kinds)


SMALL = {
    "a broker that dies and a rank that is cut off": w.Scenario(
        counts=(1, 2), split_size=1, workers=1, faults=_once("crash", "cut")
    ),
    "workers that are late, suspected and dead, with room for one block": w.Scenario(
        counts=(1, 1), split_size=1, blocks=1, faults=_once("expire", "suspect", "die")
    ),
    "one rank that goes and comes in every way": w.Scenario(
        counts=(1, 1), split_size=1, world=1, workers=1, blocks=1,
        faults=_once("crash", "cut", "reload", "resume", "leave"),
    ),
    "ranks that come with a checkpoint to a broker that dies": w.Scenario(
        counts=(1, 1), split_size=1, workers=1, blocks=1, faults=_once("reload", "crash")
    ),
    "padding in the order of arrival": w.Scenario(
        counts=(1, 2), split_size=1, workers=1, order="arrival", even="pad",
        faults=_once("crash", "cut", "expire"),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)  # a worker that is late is news a hundred times a second here
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_events_breaks_an_invariant_or_leaves_the_end_out_of_reach(name: str) -> None:
    found = Search(SMALL[name]).run(STATES)
    print(f"{name}: {found.states} states, {'all' if found.whole else 'the nearest ones'}")
    assert not found.broken, _told(found)


def scenario_of(seed: int) -> Any:
    """Return a world by chance."""
    rng = random.Random(seed + 10**6)
    counts = tuple(rng.choice([0, 1, 1, 1, 2]) for _ in range(rng.randint(3, 14)))
    sizes: tuple[int, ...] = ()
    split_size = rng.randint(1, 3)
    if rng.random() < 0.3:
        sizes = tuple(rng.randint(60, 3000) for _ in range(-(-len(counts) // split_size)))
    return w.Scenario(
        counts=counts, split_size=split_size, world=rng.choice([1, 1, 2, 3]), stride=rng.randint(1, 3),
        workers=rng.randint(1, 3), order=rng.choice(["strict", "arrival"]), even=rng.choice(["drop", "pad"]),
        epochs=rng.randint(1, 2), blocks=rng.randint(1, 4), slot=rng.choice([0, 64]) if sizes else 0, sizes=sizes,
        ahead=rng.randint(1, 2), lazy=rng.random() < 0.5, single=rng.random() < 0.6,
        failing=(0,) if rng.random() < 0.15 else (), faults=tuple((kind, 3) for kind in FAULTS),
        most=rng.randint(1, 6),
    )  # fmt: skip


def chance(seed: int) -> None:
    """Run one world by chance; a failure says how to see it again."""
    events = w.Random(seed)
    scenario = scenario_of(seed)
    try:
        events.run(w.World(scenario), 0.06)
    except Exception as error:
        steps = "\n".join(map(repr, events.trace))
        pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{scenario}\n{steps}")


@pytest.mark.parametrize("tenth", range(10))
def test_whatever_breaks_by_chance_every_datapoint_is_handed_out_as_often_as_it_should_be(tenth: int) -> None:
    for seed in range(tenth, SEEDS, 10):
        chance(seed)


MUTANTS = {
    "Unfenced": w.Scenario(counts=(1, 1), split_size=1, world=1, blocks=3, faults=_once("expire")),
    "Confirming": w.Scenario(counts=(1, 1), split_size=1, world=1, workers=1),
    "Counting": w.Scenario(
        counts=(1, 1), split_size=1, world=1, workers=1, ledger=False, seeds=True,
        faults=_once("crash"),
    ),
    "Unreserved": w.Scenario(
        counts=(1, 1, 1), split_size=1, world=1, blocks=1, slot=1000, sizes=(9000, 900, 900)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_broker_is_found_out(name: str) -> None:
    found = Search(MUTANTS[name], getattr(epochs_mutants, name)).run(20_000)
    print(_told(found))
    assert found.broken, f"{found.states} states and nothing was noticed"
    assert not Search(MUTANTS[name]).run(400).broken


def _told(found: Any) -> str:
    return "\n".join([found.broken, f"{found.states} states; the shortest way:", *map(repr, found.trace)])


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    if sys.argv[1] == "every":
        for each in SMALL:
            print(each, _told(Search(SMALL[each]).run(int(sys.argv[2]))), flush=True)
    else:
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            chance(number)
