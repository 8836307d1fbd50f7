"""Random generators: no two streams alike, unless a seed is fixed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from dfserve.dataflow import fix_rng_seed, get_rng, rng


@pytest.fixture
def _no_seed_afterwards() -> Iterator[None]:
    yield
    rng._fixed_seed = None


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


def test_two_generators_of_one_process_differ() -> None:
    assert not np.array_equal(get_rng().rand(4), get_rng().rand(4))


def test_forks_of_one_process_that_reset_have_streams_of_their_own() -> None:
    result = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    streams = result.stdout.splitlines()
    assert len(streams) == len(set(streams)) == 6


@pytest.mark.usefixtures("_no_seed_afterwards")
def test_a_fixed_seed_makes_every_generator_start_alike() -> None:
    fix_rng_seed(42)
    expected = np.random.RandomState(42).rand(5)
    assert np.array_equal(get_rng().rand(5), expected)
    assert np.array_equal(get_rng(object()).rand(5), expected)
