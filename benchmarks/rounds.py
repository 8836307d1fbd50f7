"""Owns a run: for each case the sides take turns, round after round, each time with fresh processes and a free port."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any

from benchmarks.cases import CASES

SIDES = ("ours", "rival_tensorpack", "rival_raw")
NEEDS = {"rival_tensorpack": "tensorpack"}  # side: the package without which it is skipped
GRACE = 60.0  # seconds beyond the measured ones for processes to start, warm up and end

Figures = dict[str, float]
Results = dict[str, dict[str, list[Figures]]]  # case: side: one entry a round


class PeerFailed(RuntimeError):  # noqa: N818  # says what happened
    """A process of a benchmark ended with an error; the message has what it printed."""


def available() -> tuple[str, ...]:
    """Return the sides whose packages are installed."""
    return tuple(side for side in SIDES if importlib.util.find_spec(NEEDS.get(side, "dfserve")) is not None)


def run(cases: Sequence[str], sides: Sequence[str], rounds: int, seconds: float, say: Callable[[str], None]) -> Results:
    """Measure all; ``say`` is told of each figure. Odd rounds go through the sides backwards."""
    results: Results = {case: {side: [] for side in sides} for case in cases}
    for case in cases:
        for number in range(rounds):
            for side in sides if number % 2 == 0 else tuple(reversed(sides)):
                figures = measure(side, case, seconds)
                results[case][side].append(figures)
                say(f"{case} round {number + 1}/{rounds} {side}: {rate(figures):,.0f} datapoints/s")
    return results


def measure(side: str, case: str, seconds: float) -> Figures:
    """Run one producer process and one consumer process over tcp on this machine; return the consumer's figures.

    Raises:
        PeerFailed: one of them failed, or nothing came out of them in time.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    with tempfile.TemporaryFile("w+") as log:
        consumer = start("receive", side, case, address, seconds, log, stdout=subprocess.PIPE)
        producer = start("send", side, case, address, seconds, log)
        try:
            output, _ = consumer.communicate(timeout=seconds + GRACE)
        except subprocess.TimeoutExpired:
            output = ""
        finally:
            for process in (producer, consumer):
                process.kill()
                process.wait()
        if not output:
            log.seek(0)
            raise PeerFailed(f"{side} measured nothing for the case {case!r}:\n{log.read()[-4000:]}")
    figures: Figures = json.loads(output.splitlines()[-1])
    figures["bytes"] = figures["items"] * CASES[case].nbytes
    return figures


def start(role: str, side: str, case: str, address: str, seconds: float, log: IO[str], **pipes: Any) -> Any:
    """Start one peer; it logs to a file."""
    command = [sys.executable, "-m", "benchmarks.peer", role, side, case, address, str(seconds)]
    return subprocess.Popen(command, text=True, stderr=log, **{"stdout": log, **pipes})


def rate(figures: Figures) -> float:
    """Datapoints per second."""
    return figures["items"] / figures["seconds"]


def free_port() -> int:
    """Return a tcp port of this machine that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
