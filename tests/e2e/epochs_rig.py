"""Owns what the tests of epochs mode share: their producers, brokers and ranks, and the account of what came out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from epochs_pipes import is_bad, outputs_of

from dfserve import RemoteDataZMQ

LEASE_TIME = 1.0  # seconds: short, so that a worker which is late is found out soon
SMALL_QUEUE = 2 << 20  # bytes: so that producers wait for the consumer, and what happens happens in mid-epoch
ENTER = """
import os, sys
os.execvp("ip", ["ip", "netns", "exec", sys.argv[1], sys.executable, "-m", "dfserve.cli", *sys.argv[2:]])
"""


class Rig:
    """Starts the parts of a cluster; all of them end with the test."""

    LATER = object()  # an event of `read` returns it to come again with the next datapoint

    def __init__(self, dfserve: Any, start: Any, until: Callable[..., Any], scrape: Any, folder: Path) -> None:
        self._dfserve, self._start, self.until, self._scrape = dfserve, start, until, scrape
        self.folder = folder
        self.sources: list[RemoteDataZMQ] = []
        self._producers: list[Any] = []

    def produce(
        self,
        address: str,
        workers: int = 1,
        pipelines: tuple[str, ...] = ("",),
        within: str = "",
        flags: tuple[str, ...] = (),
        **arguments: Any,
    ) -> Any:
        """Start ``dfserve produce``; ``pipelines``: their names, with "=", or one without; ``within``: a network."""
        pairs = [word for key, value in arguments.items() for word in ("--arg", f"{key}={json.dumps(value)}")]
        factories = [f"{name}epochs_pipes:items" for name in pipelines]
        words = ("produce", *factories, "--to", address, "--workers", str(workers), *flags, *pairs)
        producer = self._start("-c", ENTER, within, *words) if within else self._dfserve(*words)
        self._producers.append(producer)
        return producer

    def close(self) -> None:
        """Close consumers, and kill producers with their workers: those would take a second to see it by themselves."""
        for source in self.sources:
            source.close()
        for producer in self._producers:
            workers = []
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
                workers = producer.children()
            producer.kill()
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):  # it died with its daemon
                    worker.kill()

    def workers(self, producer: Any, count: int) -> list[psutil.Process]:
        """Wait until a producer daemon has so many workers."""
        found: list[psutil.Process] = self.until(
            lambda: children if len(children := producer.children()) == count else None, f"{count} workers"
        )
        return found

    def kill(self, producer: Any, victim: psutil.Process) -> None:
        """Kill one of a producer daemon's workers, and wait until its daemon has seen that.

        What is listed until then may be gone a moment later, or dead: who lists and kills next must not meet it.
        """
        victim.kill()
        self.until(lambda: victim not in producer.children(), f"{victim} to be reaped")

    def a_busy_worker(self, producer: Any, port: int) -> psutil.Process:
        """Return a worker of a daemon that has made something for a broker: from here on it is leased more."""
        name = self.until(
            lambda: next(iter(self._scrape(port).labelled("dfserve_datapoints_received_total")), None),
            "a worker that has made something",
        )
        producer.wait_until_said(f"worker {name} started (pid ")
        (pid,) = re.findall(rf"worker {re.escape(name)} started \(pid (\d+)\)", producer.output)
        return psutil.Process(int(pid))

    def broker(self, address: str, *flags: str) -> Any:
        """Start ``dfserve broker`` with a ledger in the test's folder, and wait until it is ready."""
        ledger = ("--ledger", str(self.folder / "ledger"), "--lease-time", f"{LEASE_TIME}s")
        program = self._dfserve("broker", "--bind", address, *ledger, "--queue-bytes", str(SMALL_QUEUE), *flags)
        program.wait_until_said("broker ready")
        return program

    def trainer(self, address: str, *flags: str, **options: Any) -> Any:
        """Start a rank in a process of its own; ``options``: of RemoteDataZMQ."""
        return self._start("epochs_pipes.py", address, "--options", json.dumps(options), *flags)

    def consumer(self, address: str = "", **options: Any) -> RemoteDataZMQ:
        """Make a consumer, which hosts its broker if it is given no address."""
        settings = {"timeout": 60, "lease_time": LEASE_TIME, "queue_bytes": SMALL_QUEUE, **options}
        source = RemoteDataZMQ(address or "tcp://127.0.0.1:0", bind=not address, mode="epochs", **settings)
        self.sources.append(source)
        return source

    def hosting(self, **options: Any) -> tuple[RemoteDataZMQ, str]:
        """Make a consumer that hosts its broker; returns it and the broker's address."""
        source = self.consumer(**options)
        return source, source.endpoints[0]

    def metric(self, port: int, name: str) -> float:
        """A metric of the broker, summed over its labels."""
        return float(self._scrape(port).total(name))

    def report_of(self, source: RemoteDataZMQ, epoch: int) -> dict[str, int]:
        """Wait for an epoch's report, and check its sum."""
        report: dict[str, int] = self.until(
            lambda: found if (found := source.report) and found["epoch"] == epoch else None, f"epoch {epoch}'s report"
        )
        parts = ("delivered", "filtered", "quarantined", "dropped", "earlier")
        assert report["items"] == sum(report[name] for name in parts), report
        return report

    def read(self, source: Iterable[Any], events: dict[int, Callable[[], Any]] | None = None) -> list[tuple[Any, ...]]:
        """Read an epoch; call ``events[n]`` when n datapoints are here, and again at the next one if it says LATER."""
        rows = []
        due = dict(events or {})
        for number, which, drawn, array in source:
            assert (array == number % 256).all(), f"{number} arrived damaged"
            rows.append((number, which, drawn))
            if (event := due.pop(len(rows), None)) is not None and event() is self.LATER:
                due[len(rows) + 1] = event
        assert not due, f"only {len(rows)} datapoints"
        return rows

    # -------------------------------------------------------------------- the account

    @staticmethod
    def rows_of(program: Any) -> list[tuple[Any, ...]]:
        """The datapoints that a trainer wrote."""
        return [tuple(line) for line in program.lines if isinstance(line, list)]

    @staticmethod
    def ends_of(program: Any) -> list[dict[str, Any]]:
        """What a trainer wrote at the ends of its epochs."""
        return [line for line in program.lines if isinstance(line, dict) and "count" in line]

    @staticmethod
    def multiset(rows: Iterable[tuple[Any, ...]]) -> Counter[tuple[int, int]]:
        return Counter((row[0], row[1]) for row in rows)

    @staticmethod
    def whole(n: int, bad: int = 0, keep_from: int = 0, without: int = -1) -> Counter[tuple[int, int]]:
        """What an epoch of `epochs_pipes.items` gives."""
        kept = (number for number in range(keep_from, n) if number != without and not is_bad(number, bad))
        return Counter((number, which) for number in kept for which in range(outputs_of(number)))

    @staticmethod
    def filtered(n: int) -> int:
        """How many items give nothing."""
        return sum(outputs_of(number) == 0 for number in range(n))

    @staticmethod
    def digest(rows: Iterable[tuple[Any, ...]]) -> str:
        """Of the sequence: order, contents and random numbers."""
        return hashlib.sha256(repr(list(map(tuple, rows))).encode()).hexdigest()
