"""Owns a standalone broker that is watched: what its /metrics page says, and the CPU time that it has used."""

from __future__ import annotations

import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import psutil

from benchmarks.processes import GRACE, PeerFailed, free_port, started

LOOK = 0.05  # seconds between looks
TIMEOUT = 5.0  # seconds for an answer


class Watched:
    """A broker.

    Attributes:
        tcp: its address for producers.
        ipc: its address for consumers on its host.
        pid: of its process.
    """

    def __init__(self, tcp: str, ipc: str, page: str, pid: int) -> None:
        self.tcp, self.ipc, self.pid = tcp, ipc, pid
        self._page = page
        self._process = psutil.Process(pid)

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def total(self, metric: str) -> float:
        """Return a metric, added over its labels."""
        with urllib.request.urlopen(self._page, timeout=TIMEOUT) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric} ", f"{metric}{{")))

    def await_total(self, metric: str, least: float) -> None:
        """Wait until a metric is at least so much.

        Raises:
            PeerFailed: it is not in time.
        """
        deadline = time.monotonic() + GRACE
        found = 0.0
        while time.monotonic() < deadline:
            try:
                found = self.total(metric)
            except (urllib.error.URLError, OSError):
                found = 0.0  # it is still starting
            if found >= least:
                return
            time.sleep(LOOK)
        raise PeerFailed(f"{metric} is {found:g} after {GRACE:.0f} s, and {least:g} is waited for")


@contextmanager
def broker(log: IO[str]) -> Iterator[Watched]:
    """Run `dfserve broker` with its defaults and a /metrics page."""
    port, page = free_port(), free_port()
    tcp, ipc = f"tcp://127.0.0.1:{port}", f"ipc://@dfserve-bench-{port}"
    with tempfile.TemporaryDirectory() as folder:
        binds = ("--bind", tcp, "--bind", ipc, "--metrics-port", page, "--ledger", f"{folder}/ledger")
        with started("dfserve.cli", "broker", *binds, log=log) as process:
            watched = Watched(tcp, ipc, f"http://127.0.0.1:{page}/metrics", process.pid)
            watched.await_total("dfserve_build_info", 1)
            yield watched
