"""Training that is killed and resumed ends with the very weights of a run that was never killed."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TRAINER = str(EXAMPLES / "digits.py")
PATH = os.pathsep.join([str(ROOT), str(EXAMPLES)])
PLAN = ["--epochs", "3", "--every", "10"]  # 171 steps
KILLS = 5
SEED = random.randrange(1 << 32)  # of the kills, printed

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")
    for name in ("torch", "sklearn", "cv2")
]

# One process for each life of the trainer, forked where torch has been imported, which takes seconds. Each ends itself
# with SIGKILL at a call of a function: before it, or after it.
LIVES = """
import json, os, signal, sys
from pathlib import Path
import torch
import digits

digits.Training()  # what torch imports late
OWNERS = {"step": digits.Training, "backward": torch.Tensor, "save": digits, "replace": Path}

def die_at(name, calls, after):
    original = getattr(OWNERS[name], name)
    def counted(*args, **kwargs):
        nonlocal calls
        calls -= 1
        if calls == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(*args, **kwargs)
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    setattr(OWNERS[name], name, counted)

for number, end in enumerate(json.loads(sys.argv[1])):
    life = os.fork()
    if life == 0:
        die_at(*end)
        digits.main(sys.argv[2:])
        os._exit(0)
    _, status = os.waitpid(life, 0)
    print(f"life {number} ended: {os.waitstatus_to_exitcode(status)}\\n", end="", flush=True)  # in one write
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a run that nothing happened to, with one worker."""
    folder = tmp_path_factory.mktemp("unbroken")
    address = f"ipc://{folder}/broker"
    environment = {**os.environ, "PYTHONPATH": PATH}
    produce = [sys.executable, "-m", "dfserve.cli", "produce", "digits_pipeline:make", "--to", address]
    with subprocess.Popen(produce, env=environment) as producer:
        try:
            command = [sys.executable, TRAINER, address, "--checkpoint", str(folder / "digits.pt"), *PLAN]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
        finally:
            producer.terminate()
    assert done.returncode == 0, done.stderr
    return weights(done.stdout)


@pytest.fixture
def produce(dfserve: Callable[..., Any]) -> Callable[..., Any]:
    """Start a producer of digits with a number of workers."""

    def _produce(address: str, workers: int) -> Any:
        pipeline = ("produce", "digits_pipeline:make", "--to", address, "--workers", str(workers))
        return dfserve(*pipeline, PYTHONPATH=PATH)

    return _produce


def weights(output: str) -> str:
    lines = output.splitlines()
    assert lines[-1].startswith("weights "), output
    return lines[-1]


def ends(seed: int) -> list[tuple[str, int, bool]]:
    """Return the ends of all lives but the last: a function, which call of it, and whether after that."""
    rng = random.Random(seed)
    names = [rng.choice(["step", "backward", "save", "replace"]) for _ in range(KILLS)]
    # 30 steps at most, so that five lives do not reach the end.
    return [(name, rng.randint(1, 30 if name in ("step", "backward") else 3), rng.random() < 0.5) for name in names]


@pytest.mark.parametrize("broker", ["embedded", "standalone"])
def test_killed_at_random_steps_and_resumed_five_times_it_ends_with_the_same_weights(
    broker: str, unbroken: str, start: Callable[..., Any], dfserve: Callable[..., Any], produce: Any, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/broker"
    trainer = [address, "--checkpoint", str(tmp_path / "digits.pt"), *PLAN]
    if broker == "standalone":
        dfserve("broker", "--bind", address, "--ledger", str(tmp_path / "ledger"), "--liveness", "3s")
        trainer.append("--connect")
    print(f"seed {SEED}: {ends(SEED)}")
    workers = produce(address, 2)
    killed = start("-c", LIVES, json.dumps(ends(SEED)), *trainer, PYTHONPATH=PATH)
    killed.wait_until_said("life 1 ended")
    workers.kill()
    produce(address, 3)
    assert killed.wait() == 0, killed.output
    assert killed.output.count("ended: -9\n") == KILLS, killed.output
    last = start(TRAINER, *trainer, PYTHONPATH=PATH)
    assert last.wait() == 0, last.output
    assert weights(last.output) == unbroken


def test_its_pipeline_yields_other_images_of_the_same_digits_in_every_pass() -> None:
    ds = runpy.run_path(str(EXAMPLES / "digits_pipeline.py"))["make"]()
    ds.reset_state()
    first, second = list(ds), list(ds)
    assert len(first) == len(ds) == 1797
    assert {(image.shape, image.dtype) for image, _ in first} == {((8, 8), np.dtype("float32"))}
    assert all(image.min() >= 0 and image.max() <= 1 for image, _ in first)
    assert [label for _, label in first] == [label for _, label in second]
    assert sum(np.array_equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True)) < 18
