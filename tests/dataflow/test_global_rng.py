"""Owns the tests of the global generators: they can be made to draw alike everywhere, and then go on as before."""

from __future__ import annotations

import random
import sys
import types
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.global_rng import drawing_alike, seed_globals, torchs_generator


class Generator:
    """As torch's: a state that can be read, set and seeded."""

    def __init__(self) -> None:
        self._rng = random.Random(7)  # nothing secret

    def manual_seed(self, seed: int) -> None:
        self._rng.seed(seed)

    def get_state(self) -> Any:
        return self._rng.getstate()

    def set_state(self, state: Any) -> None:
        self._rng.setstate(state)

    def draw(self) -> float:
        return self._rng.random()


@pytest.fixture
def torchs(monkeypatch: pytest.MonkeyPatch) -> Generator:
    generator = Generator()
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(default_generator=generator))
    return generator


def drawn(torchs: Generator) -> tuple[float, float, float]:
    return float(np.random.rand()), random.random(), torchs.draw()  # nothing secret


def test_what_is_drawn_alike_is_so_whatever_was_drawn_before_and_disturbs_nothing(torchs: Generator) -> None:
    seed_globals(5)
    undisturbed = [drawn(torchs) for _ in range(3)]
    seed_globals(5)
    found, alike = [], []
    for _ in range(3):
        with drawing_alike():
            alike.append(drawn(torchs))
        found.append(drawn(torchs))
    assert found == undisturbed
    assert alike[0] == alike[1] == alike[2]
    assert alike[0] not in found


def test_they_go_on_as_before_after_an_error_too(torchs: Generator) -> None:
    seed_globals(5)
    undisturbed = drawn(torchs)
    seed_globals(5)
    with pytest.raises(KeyError), drawing_alike():
        raise KeyError
    assert drawn(torchs) == undisturbed


@pytest.mark.parametrize("half_loaded", [None, types.SimpleNamespace()])
def test_torch_need_not_be_there(monkeypatch: pytest.MonkeyPatch, half_loaded: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", half_loaded)
    assert torchs_generator() is None
    seed_globals(1 << 63)
    with drawing_alike():
        first = np.random.rand()
    with drawing_alike():
        assert np.random.rand() == first


def test_torchs_own_generator_is_the_one_that_is_meant() -> None:
    torch = pytest.importorskip("torch")
    with drawing_alike():
        first = torch.rand(3).tolist()
    with drawing_alike():
        assert torch.rand(3).tolist() == first
