"""The trainer that docker-compose.yml runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SENDER = """
import numpy as np
from dfserve.dataflow import DataFromList, send_dataflow_zmq
send_dataflow_zmq(DataFromList([[np.zeros((8, 8, 3), np.uint8), "a.jpg"]] * 100), {address!r}, bind=True)
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A broker at an address, with a sender that repeats for ever."""
    address = f"ipc://{tmp_path}/broker"
    sender = subprocess.Popen([sys.executable, "-c", SENDER.format(address=address)], cwd=ROOT)
    try:
        yield address
    finally:
        sender.kill()
        sender.wait(timeout=30)


def test_the_trainer_says_how_fast_it_goes_and_ends_well_when_it_is_told_to(address: str) -> None:
    command = [sys.executable, "-u", str(ROOT / "examples" / "trainer.py"), address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as trainer:
        try:
            assert trainer.stdout is not None
            lines = [trainer.stdout.readline() for _ in range(2)]
            trainer.send_signal(signal.SIGTERM)
            _, errors = trainer.communicate(timeout=30)
        finally:
            trainer.kill()
    said = [re.fullmatch(r"(\d+) items, (\d+) items/s, \(32, 8, 8, 3\) uint8\n", line) for line in lines]
    assert all(said), f"{lines}\n{errors}"
    first, second = (int(match[1]) for match in said if match)
    assert 0 < first < second
    assert trainer.returncode == 0, errors
    # One that the signal raised in a finaliser Python itself ignores, with a word, and the trainer ends all the same.
    assert errors.count("Traceback") == errors.count("Exception ignored"), errors


def test_the_trainer_without_an_address_says_how_it_is_called() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "trainer.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "usage: trainer.py ADDRESS" in done.stderr
