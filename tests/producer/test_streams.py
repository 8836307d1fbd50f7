"""Owns the tests of the numbers that generators get for an item."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from dfserve.dataflow import get_rng, imgaug
from dfserve.dataflow.rng import PhiloxState, living, made_by
from dfserve.producer.streams import ItemStreams


def test_what_is_made_in_a_reset_is_numbered_in_that_order() -> None:
    streams = ItemStreams(seed_globals=False)
    with streams.preparing():
        first, second = get_rng(), get_rng()
    expected = PhiloxState(0)
    for number, rng in enumerate((first, second)):
        streams.go_to(5, 6)
        expected.jump(5, 6, number)
        assert rng.rand() == expected.rand()


def test_an_augmentor_gets_the_number_of_its_turn_in_the_item() -> None:
    a, b = imgaug.Flip(horiz=True), imgaug.Flip(vert=True)
    streams = ItemStreams(seed_globals=False)
    with streams.running():
        streams.go_to(1, 2)
        both = [a.rng.rand(), b.rng.rand()]
        streams.go_to(1, 2)
        other_order = [b.rng.rand(), a.rng.rand()]
        streams.go_to(1, 2)
        assert [a.rng.rand(), a.rng.rand()][0] == both[0]
    assert both == other_order
    assert both[0] != both[1]


def test_an_augmentor_has_its_own_generator_again_after_a_run() -> None:
    augmentor = imgaug.Flip(horiz=True)
    mine = augmentor.rng
    state = mine.get_state()
    streams = ItemStreams(seed_globals=False)
    with streams.preparing():
        augmentor.reset_state()
    with streams.running():
        streams.go_to(1, 2)
        assert augmentor.rng is not mine
        augmentor.rng.rand()
    assert augmentor.rng is mine
    assert repr(mine.get_state()) == repr(state)


def test_each_datapoint_of_a_shard_has_numbers_of_its_own() -> None:
    streams = ItemStreams(seed_globals=True)
    drawn = []
    with streams.running(at_any_cost=True):
        for part in range(3):
            streams.go_to(1, 2, part)
            drawn.append(np.random.rand())
        assert len(set(drawn)) == 3
        streams.go_to(1, 2, 1)
        assert np.random.rand() == drawn[1]


def _runs(streams: ItemStreams, *, draws: bool = False) -> bool:
    with streams.running():
        streams.go_to(1, 2)
        if draws:
            np.random.rand()
    return streams.missed()


def test_global_numbers_that_a_run_draws_are_noticed_once_and_seeded_from_then_on() -> None:
    streams = ItemStreams(seed_globals=True)
    assert not _runs(streams)
    assert _runs(streams, draws=True)  # it, or somebody since the last run
    assert _runs(streams, draws=True)  # it
    assert not _runs(streams, draws=True)


def test_global_numbers_that_somebody_draws_between_two_runs_cost_one_run_and_seed_nothing() -> None:
    streams = ItemStreams(seed_globals=True)
    assert not _runs(streams)
    np.random.rand()
    assert _runs(streams)
    for _ in range(3):
        np.random.rand()
        before = np.random.get_state()[1].tolist()
        assert not _runs(streams)
        assert np.random.get_state()[1].tolist() == before


def test_what_only_lives_for_an_item_has_the_same_number_in_all() -> None:
    streams = ItemStreams(seed_globals=False)
    with streams.running():
        streams.go_to(1, 2)
        first = get_rng().rand()
        streams.go_to(1, 3)
        kept = get_rng()
        streams.go_to(1, 2)
        assert kept.rand() == first
        assert get_rng().rand() != first


def test_a_makers_generators_are_its_own_and_it_ends_with_its_block() -> None:
    made = PhiloxState(1)
    owners = []

    def maker(owner: object) -> PhiloxState:
        owners.append(owner)
        return made

    with made_by(maker):
        assert get_rng(5) is made
    assert owners == [5]
    mine = get_rng()
    assert mine is not made
    assert any(rng is mine for rng in living())
    assert not any(rng is made for rng in living())


def test_a_generator_knows_its_owner_as_long_as_that_lives() -> None:
    augmentor = imgaug.Flip(horiz=True)
    rng = augmentor.rng
    assert rng.owner() is augmentor
    assert get_rng().owner() is None
    assert get_rng(5).owner() is None
    del augmentor
    assert rng.owner() is None


def test_a_forked_child_is_not_served_by_its_parents_maker() -> None:
    code = (
        "import os\n"
        "from dfserve.dataflow.rng import PhiloxState, get_rng, made_by\n"
        "made = PhiloxState(1)\n"
        "with made_by(lambda owner: made):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(get_rng() is made)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
