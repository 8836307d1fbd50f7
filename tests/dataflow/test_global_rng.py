"""Owns the tests of the global generators: they can be made to draw alike everywhere, and then go on as before."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.global_rng import drawing_alike, seed_globals, torchs_generator


class Generator:
    """As torch's: a state that can be read, set and seeded."""

    def __init__(self) -> None:
        self._rng = random.Random(7)

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
    return float(np.random.rand()), random.random(), torchs.draw()


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


TORCH = """
import random
class Generator:
    def __init__(self):
        self.rng = random.SystemRandom()
    def manual_seed(self, seed):
        self.rng = random.Random(seed)
    def get_state(self):
        return self.rng.getstate()
    def set_state(self, state):
        self.rng = random.Random()
        self.rng.setstate(state)
default_generator = Generator()
"""
SPLIT = """
import json, sys
before = list(sys.meta_path)
from dfserve.dataflow.global_rng import drawing_alike
def draw():
    import torch
    return torch.default_generator.rng.random()
with drawing_alike(importing=True):
    import where_torch_is_loaded
with drawing_alike():
    first = draw()
with drawing_alike():
    print(json.dumps([where_torch_is_loaded.drawn, first, draw(), sys.meta_path == before]))
"""


@pytest.mark.parametrize("module", ["drawn = None", "import torch; drawn = torch.default_generator.rng.random()"])
def test_torch_draws_alike_when_it_is_loaded_by_the_users_module_or_by_a_factory(tmp_path: Path, module: str) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "where_torch_is_loaded.py").write_text(module)
    told = {
        subprocess.run([sys.executable, "-c", SPLIT], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        for _ in range(3)
    }
    assert len(told) == 1, "all processes drew alike"
    _, first, again, nothing_is_left = json.loads(told.pop())
    assert first == again
    assert nothing_is_left


def test_a_seed_that_the_users_module_sets_is_where_its_factories_begin() -> None:
    code = (
        "import numpy as np\n"
        "from dfserve.dataflow.global_rng import drawing_alike\n"
        "with drawing_alike(importing=True):\n    np.random.seed(42)\n"
        "for _ in range(2):\n    with drawing_alike():\n        print(np.random.rand())\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert [float(one) for one in told] == [np.random.RandomState(42).rand()] * 2


def test_torchs_own_generator_is_the_one_that_is_meant() -> None:
    torch = pytest.importorskip("torch")
    with drawing_alike():
        first = torch.rand(3).tolist()
    with drawing_alike():
        assert torch.rand(3).tolist() == first
