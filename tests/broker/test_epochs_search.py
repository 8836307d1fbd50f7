"""Every order of events in small worlds, chance in larger ones, and broken brokers that both must notice.

``python tests/broker/test_epochs_search.py chance FIRST LAST`` tries seeds (``DFSERVE_SEEDS`` so many under pytest),
``... every STATES`` goes through two splits, two workers and two ranks with each kind of fault, up to so many states.
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
from epochs_compared import Whole
from epochs_peers import Scenario
from epochs_search import Search

pytestmark = pytest.mark.timeout(600)  # they compute for 10 s, on a machine of their own; nothing in them can hang
SEEDS = int(os.environ.get("DFSERVE_SEEDS", "5000"))
FAULTS = ["expire", "suspect", "cutw", "die", "cut", "crash", "reload", "resume", "leave", "again", "rest"]


def _once(*kinds: str) -> tuple[tuple[str, int], ...]:
    return tuple((kind, 1) for kind in kinds)


# Each is gone through to its end. Two splits, two workers and two ranks, and one of each where that says as much.
SMALL = {
    "workers that are late": Scenario(counts=(1, 1), split_size=1, faults=_once("expire"), most=1),
    "workers that are suspected, cut off and dead, with room for one block": Scenario(
        counts=(1, 1), split_size=1, blocks=1, faults=_once("suspect", "cutw", "die"), most=1
    ),
    "a worker that is late and cut off, and an item that raises": Scenario(
        counts=(1, 1), split_size=1, workers=1, blocks=1, failing=(1,), faults=_once("expire", "cutw")
    ),
    "a rank that is cut off": Scenario(counts=(1, 1), split_size=1, workers=1, blocks=1, faults=_once("cut"), most=1),
    "a broker that dies": Scenario(counts=(1, 1), split_size=1, workers=1, blocks=1, faults=_once("crash"), most=1),
    "a broker that dies and a rank that is cut off": Scenario(
        counts=(1, 1), split_size=1, world=1, workers=1, blocks=1, faults=_once("crash", "cut")
    ),
    "one rank that goes and comes in every way, and was not dead": Scenario(
        counts=(1, 1), split_size=1, world=1, workers=1, blocks=1, lives=1,
        faults=_once("reload", "resume", "again", "leave"), most=1,
    ),
    "ranks that are killed and load a checkpoint": Scenario(
        counts=(2,), split_size=1, workers=1, blocks=1, lives=0, faults=_once("reload"), most=1
    ),
    "ranks that leave, or begin again": Scenario(
        counts=(2,), split_size=1, workers=1, blocks=1, lives=0, faults=_once("leave", "again"), most=1
    ),
    "padding in the order of arrival, and an item that gives nothing": Scenario(
        counts=(0, 1), split_size=1, workers=1, blocks=1, order="arrival", even="pad", faults=_once("cut", "expire"),
        most=1,
    ),
}  # fmt: skip

# Two splits, two workers and two ranks, and each kind of fault for itself: minutes, see `main`. Ranks that were killed
# may come back, as those that were only out of reach do.
FULL = {
    f"{kind}, {order}, killed ranks come back {lives} times": Scenario(
        counts=(1, 1), split_size=1, order=order, faults=_once(kind), most=1, lives=lives
    )
    for order in ("strict", "arrival")
    for kind in ("expire", "suspect", "die", "cutw", "cut", "crash", "leave", "reload")
    for lives in ((0, 1) if kind == "reload" else (0,))
    if order == "strict" or kind not in ("leave", "reload")  # else several ranks have no position to go back to
}

# Small enough to be gone through in all steps, too.
TWICE = {
    "expire": Scenario(counts=(1, 1), split_size=1, world=1, workers=1, faults=_once("expire"), most=1),
    "crash and cut": Scenario(
        counts=(1,), split_size=1, world=1, workers=1, blocks=1, faults=_once("crash", "cut"), most=1
    ),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)  # a worker that is late is news a hundred times a second here
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_events_breaks_an_invariant_or_leaves_the_end_out_of_reach(name: str) -> None:
    found = Search(SMALL[name]).run(100_000)
    print(f"{name}: {found.states} states, {'all' if found.whole else 'the nearest ones'}")
    assert not found.broken, _told(found)
    assert found.whole


@pytest.mark.parametrize("name", TWICE)
def test_fewer_steps_come_to_all_that_all_steps_come_to(name: str) -> None:
    fewer, every = Search(TWICE[name]), Search(TWICE[name], Whole)
    fewer.compares = every.compares = True
    one, other = fewer.run(100_000), every.run(100_000)
    assert one.whole
    assert other.whole
    assert one.ends == other.ends
    assert every.quiet <= fewer.quiet


def scenario_of(seed: int) -> Any:
    """Return a world by chance."""
    rng = random.Random(seed + 10**6)
    counts = tuple(rng.choice([0, 1, 1, 1, 2]) for _ in range(rng.randint(3, 14)))
    sizes: tuple[int, ...] = ()
    split_size = rng.randint(1, 3)
    if rng.random() < 0.3:
        sizes = tuple(rng.randint(60, 3000) for _ in range(-(-len(counts) // split_size)))
    return Scenario(
        counts=counts, split_size=split_size, world=rng.choice([1, 1, 2, 3]), stride=rng.randint(1, 3),
        workers=rng.randint(1, 3), order=rng.choice(["strict", "arrival"]), even=rng.choice(["drop", "pad"]),
        epochs=rng.randint(1, 2), blocks=rng.randint(1, 4), slot=rng.choice([0, 64]) if sizes else 0, sizes=sizes,
        ahead=rng.randint(1, 2), lazy=rng.random() < 0.5, single=rng.random() < 0.6,
        failing=(0,) if rng.random() < 0.15 else (), faults=tuple((kind, 3) for kind in FAULTS),
        most=rng.randint(1, 6), ledger=rng.random() < 0.8, hosts=rng.random() < 0.7,
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
    "Unfenced": Scenario(counts=(1, 1), split_size=1, world=1, blocks=3, faults=_once("expire")),
    "Confirming": Scenario(counts=(1, 1), split_size=1, world=1, workers=1),
    "CountingWhole": Scenario(  # fewer steps are as good where a number is one lease's, which is what it breaks
        counts=(1,), split_size=1, world=1, workers=1, ledger=False, seeds=True,
        faults=_once("crash"),
    ),
    "Unreserved": Scenario(
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


def main(what: str, *numbers: str) -> None:
    """Search further than the tests do."""
    logging.disable(logging.ERROR)
    if what == "chance":
        for number in range(*map(int, numbers)):
            chance(number)
        return
    for name in FULL:
        found = Search(FULL[name]).run(int(numbers[0]))
        print(f"{name}: {'all' if found.whole else 'the nearest'} {found.states} states. {found.broken}", flush=True)
        for step in found.trace:
            print(f"  {step!r}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
