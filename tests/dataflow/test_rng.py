"""Random generators: no two streams alike, and all of them the same in every run once a seed is fixed."""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import DataFromList, fix_rng_seed, get_rng, rng
from dfserve.dataflow.rng import PhiloxState, Place, take_place, worker_places
from dfserve.errors import ConfigError

words = st.integers(0, 2**64 - 1)


FORKS = """
import os
from dfserve.dataflow import DataFromList
ds = DataFromList(list(range(1000)))
ds.reset_state()
for _ in range(6):
    if not (pid := os.fork()):
        ds.reset_state()
        print(list(ds)[:8], flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""

RUN = """
from dfserve.dataflow import fix_rng_seed, get_rng
from dfserve.dataflow.rng import take_place, worker_places
fix_rng_seed(42)
print(get_rng().rand(), get_rng().rand())
for place in worker_places(2) + worker_places(2):
    take_place(place)
    print(get_rng().rand(), get_rng().rand())
"""


def test_two_generators_of_one_process_differ() -> None:
    assert not np.array_equal(get_rng().rand(4), get_rng().rand(4))


def test_forks_of_one_process_that_reset_have_streams_of_their_own() -> None:
    result = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    streams = result.stdout.splitlines()
    assert len(streams) == len(set(streams)) == 6


def test_a_fixed_seed_makes_the_same_generators_again_and_no_two_alike() -> None:
    runs = []
    for _ in range(2):
        fix_rng_seed(42)
        runs.append([get_rng().rand(3).tolist() for _ in range(5)])
    assert runs[0] == runs[1]
    assert len({tuple(draws) for draws in runs[0]}) == 5


def test_another_seed_makes_other_generators() -> None:
    draws = []
    for seed in (0, 1, 2**40, 2**40 + 1):
        fix_rng_seed(seed)
        draws.append(get_rng().rand())
    assert len(set(draws)) == 4


def test_without_a_seed_every_run_is_different() -> None:
    code = "from dfserve.dataflow import get_rng; print(get_rng().rand())"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 2


def test_a_seed_repeats_a_whole_run_and_every_worker_draws_otherwise() -> None:
    first, second = (
        subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True).stdout for _ in "ab"
    )
    assert first == second
    draws = first.split()
    assert len(draws) == len(set(draws)) == 10


def test_a_pipeline_is_the_same_again_when_the_seed_is_fixed_before_its_reset() -> None:
    orders = []
    for _ in range(2):
        fix_rng_seed(7)
        flows = [DataFromList([[n] for n in range(30)]) for _ in range(2)]
        for ds in flows:
            ds.reset_state()
        orders.append([list(ds) for ds in flows] + [list(ds) for ds in flows])
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders[0]}) == 4


def test_places_name_every_worker_of_every_pool_and_of_workers_pools() -> None:
    take_place(Place(5, (3,)))
    first, second = worker_places(2), worker_places(1)
    assert first == [Place(5, (3, 0, 0)), Place(5, (3, 0, 1))]
    assert second == [Place(5, (3, 1, 0))]
    draws = []
    for place in [*first, *second, Place(5, (3,)), Place(5)]:
        take_place(place)
        draws += [get_rng().rand(), get_rng().rand()]
    assert len(set(draws)) == 10


def test_workers_of_a_run_without_a_seed_have_none() -> None:
    assert worker_places(1)[0].seed is None


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="the seed is -1"):
        fix_rng_seed(-1)


def test_the_object_given_to_get_rng_does_not_matter() -> None:
    fix_rng_seed(1)
    first = get_rng(object()).rand()
    fix_rng_seed(1)
    assert get_rng().rand() == first


def test_a_generator_is_a_random_state_with_all_its_methods() -> None:
    generator = get_rng()
    assert isinstance(generator, np.random.RandomState)
    assert sorted(generator.permutation(5)) == [0, 1, 2, 3, 4]
    assert 0 <= generator.randint(3) < 3
    assert generator.choice(["a"]) == "a"
    assert generator.uniform(2, 3, (2, 2)).shape == (2, 2)
    assert generator.randn(3).shape == generator.standard_gamma(1.0, 3).shape == (3,)
    deck = list(range(9))
    generator.shuffle(deck)
    assert sorted(deck) == list(range(9))


def draws_of_all_kinds(generator: Any) -> list[Any]:
    """Draws that leave something behind in a generator: half a word, the second of two normal numbers."""
    return [
        generator.rand(),
        int(generator.randint(0, 100, dtype=np.uint8)),
        int(generator.randint(0, 2**31, dtype=np.uint32)),
        generator.normal(),
        *generator.permutation(4).tolist(),
    ]


@given(words, words, words, st.integers(0, 9))
def test_a_jump_leads_to_the_same_stream_whatever_was_drawn_before(key: int, high: int, low: int, before: int) -> None:
    fresh, used = PhiloxState(1), PhiloxState(2)
    for _ in range(before):
        draws_of_all_kinds(used)
    for generator in (fresh, used):
        generator.jump(key, high, low)
    assert draws_of_all_kinds(fresh) == draws_of_all_kinds(used)
    used.jump(key, high, low)
    again = draws_of_all_kinds(used)
    fresh.jump(key, high, low)
    assert draws_of_all_kinds(fresh) == again


@given(st.lists(st.tuples(words, words, words), unique=True, min_size=2, max_size=20))
def test_jumps_to_different_numbers_lead_to_different_streams(names: list[tuple[int, int, int]]) -> None:
    generator = PhiloxState(0)
    draws = set()
    for name in names:
        generator.jump(*name)
        draws.add((generator.rand(), generator.rand()))
    assert len(draws) == len(names)


def test_streams_next_to_each_other_do_not_overlap_nor_depend_on_each_other() -> None:
    generator = PhiloxState(0)
    streams = []
    for high in range(50):
        generator.jump(3, high)
        streams.append(generator.rand(200))
    values = np.array(streams)
    assert len(np.unique(values)) == values.size
    correlation = np.corrcoef(values)[~np.eye(50, dtype=bool)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(200)
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * values.size)


def test_the_numbers_behind_a_jump_never_change() -> None:
    # A training run may be continued years later, on another version: what a name names is a promise.
    generator = PhiloxState()
    generator.jump(1, 2, 3)
    philox = np.random.Philox(counter=[0, 0, 3, 2], key=[1, 0])
    assert np.array_equal(generator.rand(8), np.random.RandomState(philox).rand(8))
    assert int(np.random.Philox(counter=[0, 0, 3, 2], key=[1, 0]).random_raw()) == 6649467637274347345


def test_seeding_starts_the_stream_of_that_seed_again() -> None:
    generator = PhiloxState(4)
    first = draws_of_all_kinds(generator)
    draws_of_all_kinds(generator)
    generator.seed(4)
    assert draws_of_all_kinds(generator) == first
    generator.seed(5)
    assert draws_of_all_kinds(generator) != first
    generator.seed()
    assert draws_of_all_kinds(generator) != first


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_copy_goes_on_as_the_original_does_and_by_itself(twin: Any) -> None:
    generator = PhiloxState(6)
    draws_of_all_kinds(generator)
    other = twin(generator)
    assert type(other) is PhiloxState
    ahead = [draws_of_all_kinds(other) for _ in range(3)]
    assert [draws_of_all_kinds(generator) for _ in range(3)] == ahead
    other.jump(1, 1)
    generator.jump(1, 1)
    assert draws_of_all_kinds(other) == draws_of_all_kinds(generator)


def test_a_state_that_was_kept_can_be_set_again_without_a_warning() -> None:
    generator = PhiloxState(6)
    draws_of_all_kinds(generator)
    state = generator.get_state()
    ahead = draws_of_all_kinds(generator)
    generator.set_state(state)
    assert draws_of_all_kinds(generator) == ahead


def test_taking_a_place_starts_the_count_of_generators_again() -> None:
    take_place(Place(9, (1,)))
    first = get_rng().rand()
    take_place(Place(9, (1,)))
    assert get_rng().rand() == first
    assert rng._place == Place(9, (1,))


def test_a_child_that_is_forked_in_its_block_leaves_it_well() -> None:
    code = (
        "import os, sys\n"
        "from dfserve.dataflow import rng\n"
        "child = 0\n"
        "with rng.made_by(lambda _: None):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_that_answer_for_it_may_end_in_any_order_and_leave_nothing_behind() -> None:
    first, second = PhiloxState(1), PhiloxState(2)
    one, other = rng.made_by(lambda _: first), rng.made_by(lambda _: second)
    with contextlib.ExitStack() as stack:
        stack.push(one)
        one.__enter__()
        assert get_rng() is first
        with other:
            assert get_rng() is second
            stack.close()
            assert get_rng() is second
    assert get_rng() not in (first, second)
