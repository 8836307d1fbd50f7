"""Owns what all tests share: starting real processes, waiting for what they say, and seeing that none is left."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
PIPES = Path(__file__).resolve().parent / "e2e"  # where pipes.py lies
# Tests run beside others on two busy cores: how long an example takes says nothing about the code. CI, which decides
# what lands, has the same examples each time; everybody else's run looks for new ones.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("busy")
PATIENCE = 60.0  # seconds: a hang becomes a failure


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """End a child that a test forked and that raised: as a second pytest it would go on with the other tests."""
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != pid:
            traceback.print_exc()
            os._exit(99)


class Program:
    """A running process whose output goes to a file, so that it never blocks and can be searched."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PIPES,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **environment},
            )
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def lines(self) -> list[Any]:
        """The lines of its output that are JSON objects or lists."""
        *whole, last = self.output.split("\n")
        found = [json.loads(line) for line in whole if line.startswith(("{", "["))]
        if last.startswith(("{", "[")):
            with contextlib.suppress(ValueError):  # half written
                found.append(json.loads(last))
        return found

    def said(self, text: str) -> bool:
        return text in self.output

    def wait_until_said(self, text: str) -> None:
        wait_until(lambda: self.said(text) or self.process.poll() is not None, f"{text!r} from {self.process.args}")
        assert self.said(text), self.output

    def wait(self, timeout: float = PATIENCE) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.process.args} did not end within {timeout} s:\n{self.output}")

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)


def wait_until(true: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Wait for a condition; a hang becomes a failure that says what was missing."""
    deadline = time.monotonic() + timeout
    while not (value := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s for {what}")
        time.sleep(0.02)
    return value


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``python ARGUMENTS`` in the folder of pipes.py; at the end nothing that was started may be left."""
    programs: list[Program] = []
    family: set[psutil.Process] = set()

    def _start(*arguments: str, **environment: str) -> Program:
        program = Program(list(arguments), tmp_path / f"log-{len(programs)}.txt", environment)
        programs.append(program)
        return program

    yield _start
    for program in programs:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.update(program.children())
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGCONT)
            program.kill()
    _, alive = psutil.wait_procs(list(family), timeout=PATIENCE / 2)
    assert not alive, f"orphans: {alive}"


@pytest.fixture
def dfserve(start: Start) -> Start:
    """Start ``dfserve ARGUMENTS``."""
    return lambda *arguments, **environment: start("-m", "dfserve.cli", *arguments, **environment)


# Ports of each process of pytest, below those that the system gives to whoever asks for any (32,768 and more): a port
# that is free now must still be free when a program that was started for it binds it.
PORTS, FIRST_PORT, PROCESSES = 2000, 10_000, 10
_numbers = itertools.count(os.getpid())  # another run of pytest begins elsewhere


def _free_port() -> int:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    for _ in range(PORTS):
        port = FIRST_PORT + PORTS * process + next(_numbers) % PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError(f"none of {PORTS} ports is free")


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture
def metrics_port() -> int:
    return _free_port()


@pytest.fixture(params=["tcp", "ipc", "abstract"])
def address(request: pytest.FixtureRequest, free_port: int, tmp_path: Path) -> str:
    """An address of each transport, one after another."""
    return {
        "tcp": f"tcp://127.0.0.1:{free_port}",
        "ipc": f"ipc://{tmp_path}/socket",
        "abstract": f"ipc://@test-{os.getpid()}-{free_port}",
    }[request.param]


@pytest.fixture
def tcp_address(free_port: int) -> str:
    return f"tcp://127.0.0.1:{free_port}"


class Scrape:
    """The metrics page of a port, by name: with labels as {'name{a="b"}': value}, and summed over them."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
            text = page.read().decode()
        pairs = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        self.values = {name: float(value) for name, _, value in pairs}

    def total(self, name: str) -> float:
        return sum(value for key, value in self.values.items() if key.partition("{")[0] == name)

    def labelled(self, name: str) -> Counter[str]:
        """A metric by the value of its one label; those that are 0 are left out."""
        found = {key: re.fullmatch(name + r'\{\w+="(.*)"\}', key) for key in self.values}
        return +Counter({match[1]: self.values[key] for key, match in found.items() if match})


@pytest.fixture
def scrape() -> Callable[[int], Scrape]:
    return Scrape


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until
