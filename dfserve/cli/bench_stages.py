"""Owns the measuring of `dfserve bench`: a pipeline in bare loops, and through real workers, broker and consumer."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dfserve.cli.bench_processes import FIELDS, Child, Processes, Report, Tallies, Tally, busy_seconds, cpu_seconds
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.dataflow.afresh import start_afresh
from dfserve.dataflow.base import DataFlow
from dfserve.dataflow.rng import Place, seed_of_run
from dfserve.errors import EncodeError, FactoryError, PipelineError, Starved
from dfserve.producer.board import Board
from dfserve.producer.foreign import to_arrays
from dfserve.producer.reports import traceback_of
from dfserve.producer.supervisor import Plan, Supervisor
from dfserve.producer.uplink import Uplink
from dfserve.wire.blocks import encode_block

TURN = 0.1  # seconds between looks at the processes
QUEUE_LEAST = 64 << 20  # bytes: small, so that a queue that fills is soon full, and the rate is that of the slower side
QUEUE_PER_WORKER = 4 << 20  # bytes: two blocks, and room for the next
QUEUE_DATAPOINTS = 4  # for each worker, of large ones
COMPONENTS_SHOWN = 6

Show = Callable[[str, float], None]  # is told, now and then, what is done and the datapoints/s


@dataclass(frozen=True)
class Settings:
    """How to measure: seconds, after a warm-up, until nothing has come for ``timeout`` seconds."""

    seconds: float
    warmup: float
    timeout: float


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        rate: datapoints/s.
        cpu: CPUs that were busy with the pipeline (and with sending).
        broker_cpu, consumer_cpu: the same of those, where they took part.
        waited: share of the time that the consumer waited.
        others: CPUs that were busy with anything else.
        nbytes: mean of a datapoint as it travels; 0: not weighed here.
        structure: of a datapoint, for people.
    """

    rate: float
    cpu: float
    broker_cpu: float = 0.0
    consumer_cpu: float = 0.0
    waited: float = 0.0
    others: float = 0.0
    nbytes: float = 0.0
    structure: str = ""


def measure_loops(flow: DataFlow, count: int, settings: Settings, show: Show) -> Sample:
    """Iterate a pipeline in ``count`` processes at once, that do nothing else with its datapoints.

    Raises:
        PipelineError: it raised; with its traceback.
        FactoryError: a pass of it yields nothing.
        Starved: a loop got nothing within the timeout.
        WorkerLost: a loop was killed.
    """
    tallies = Tallies(count)
    with Processes() as processes:
        loops = [processes.fork(f"loop {n}", partial(_loop, flow, n, tallies, settings.warmup)) for n in range(count)]
        window = _Window(processes, tallies, settings, loops, show)
        window.run()
        return window.sample()


def measure_transport(flow: DataFlow, workers: int, nbytes: float, settings: Settings, show: Show) -> Sample:
    """Send from real workers over tcp through an embedded broker to one consumer, which throws the datapoints away.

    Raises:
        PipelineError, WorkerLost, Starved: as the consumer raises them.
        WorkerLost: also if the consumer or the workers' supervisor ended.
    """
    tallies = Tallies(1)
    queue = int(max(QUEUE_LEAST, workers * max(QUEUE_PER_WORKER, QUEUE_DATAPOINTS * nbytes)))
    with Processes() as processes:
        consumer = processes.fork("the consumer", partial(_consume, tallies, queue, settings.timeout))
        deadline = time.monotonic() + settings.timeout
        while (report := processes.next_report(deadline - time.monotonic())) is None:
            if time.monotonic() > deadline:
                raise Starved(f"the embedded broker did not start within {settings.timeout:g} s")
        # SIGKILL: its workers end with it, and need not hand over anything first.
        supervise = partial(_supervise, flow, report["address"], workers)
        supervisor = processes.fork("the workers' supervisor", supervise, signal.SIGKILL)
        window = _Window(processes, tallies, settings, [consumer, supervisor], show)
        window.run()
        return window.sample_of_transport()


class _Window:
    """The time in which is measured: from the end of the warm-up on, until everybody who counts has counted."""

    def __init__(
        self, processes: Processes, tallies: Tallies, settings: Settings, watched: list[Child], show: Show
    ) -> None:
        self._processes, self._tallies, self._settings, self._show = processes, tallies, settings, show
        self._watched = watched
        self._structure = ""
        self._first: list[Tally] = []
        self._last: list[Tally] = []
        self._cpu: list[tuple[float, float]] = []
        self._others = 0.0

    def run(self) -> None:
        nothing = [Tally()] * len(self._tallies.read())
        self._advance(nothing, 0.0, "waiting for the first datapoint")
        self._advance([], self._settings.warmup, "warming up")
        self._first, before, busy, started = self._tallies.read(), self._cpu_now(), busy_seconds(), time.monotonic()
        self._advance(self._first, self._settings.seconds, "")
        self._last, seconds = self._tallies.read(), time.monotonic() - started
        self._cpu = [
            ((own - own_before) / seconds, (below - below_before) / seconds)
            for (own, below), (own_before, below_before) in zip(self._cpu_now(), before, strict=True)
        ]
        ours = sum(own + below for own, below in self._cpu)
        self._others = max(0.0, (busy_seconds() - busy) / seconds - ours)

    def _advance(self, beyond: list[Tally], seconds: float, what: str) -> None:
        """Wait so many seconds, and until each tally is beyond what it was."""
        started = heard = time.monotonic()
        tallies = self._tallies.read()
        while True:
            behind = sum(now.count <= then.count for now, then in zip(tallies, beyond, strict=False))
            now = time.monotonic()
            self._show(what, 0.0 if what else _rate(self._first, tallies))
            if now - started >= seconds and not behind:
                return
            if now - heard > self._settings.timeout:
                raise Starved(_starved(behind, len(tallies), self._settings.timeout))
            rest = seconds - (now - started)
            report = self._processes.next_report(min(TURN, rest) if rest > 0 else TURN)
            self._structure = (report or {}).get("structure", self._structure)
            before, tallies = tallies, self._tallies.read()
            if sum(tally.count for tally in tallies) > sum(tally.count for tally in before):
                heard = time.monotonic()

    def _cpu_now(self) -> list[tuple[float, float]]:
        return cpu_seconds([child.pid for child in self._watched])

    def sample(self) -> Sample:
        """Return what bare loops made."""
        weighed, nbytes = sum(tally.weighed for tally in self._last), sum(tally.nbytes for tally in self._last)
        return Sample(
            _rate(self._first, self._last),
            sum(own + below for own, below in self._cpu),
            others=self._others,
            nbytes=nbytes / weighed,
            structure=self._structure,
        )

    def sample_of_transport(self) -> Sample:
        """Return what the consumer got."""
        ((consumer, broker), (supervisor, workers)) = self._cpu
        (first,), (last,) = self._first, self._last
        return Sample(
            _rate(self._first, self._last),
            supervisor + workers,
            broker,
            consumer,
            min(1.0, (last.waited - first.waited) / max(last.when - first.when, 1e-9)),
            self._others,
        )


def _rate(first: list[Tally], last: list[Tally]) -> float:
    """Add up each process's rate, from one datapoint of its to another: right also for slow ones."""
    pairs = zip(first, last, strict=True)
    return sum((end.count - start.count) / (end.when - start.when) for start, end in pairs if end.when > start.when)


def _starved(behind: int, count: int, timeout: float) -> str:
    who = "the pipeline" if count == 1 else f"{behind} of {count} loops"
    return f"{who} yielded no datapoint for {timeout:g} s; if that is how long one takes, raise --timeout"


# ---------------------------------------------------------------------- in processes of their own


def _loop(flow: DataFlow, number: int, tallies: Tallies, warmup: float, report: Report) -> None:
    """Iterate for ever, counting; weigh the datapoints of the warm-up's first half."""
    start_afresh(Place(seed_of_run(), (number,)))
    try:
        _iterate(flow, number, tallies, warmup, report)
    except FactoryError:
        raise
    except Exception as error:
        text = f"the pipeline raised {type(error).__name__}: {error}"
        raise PipelineError(text, worker=f"loop {number}", remote_traceback=traceback_of(error)) from error


def _iterate(flow: DataFlow, number: int, tallies: Tallies, warmup: float, report: Report) -> None:
    numbers, count, passes, clock = tallies.numbers, 0, 0, time.monotonic
    at = number * FIELDS
    when, weighed, nbytes = at + 1, at + 3, at + 4
    weigh_until = 0.0
    flow.reset_state()
    while True:
        before = count
        for datapoint in flow:
            if count < 1 or clock() < weigh_until:
                numbers[nbytes] += _weigh(datapoint)
                numbers[weighed] += 1
                if count < 1:
                    report({"structure": structure_of(datapoint)})
                    weigh_until = clock() + warmup / 2
            count += 1
            numbers[when] = clock()
            numbers[at] = count
        if count == before:
            raise FactoryError(_nothing(passes))
        passes += 1


def _weigh(datapoint: Any) -> int:
    """Return the bytes of a datapoint as it travels.

    Raises:
        EncodeError: it cannot travel.
    """
    try:
        return encode_block([to_arrays(datapoint)]).nbytes
    except EncodeError as error:
        raise EncodeError(f"a datapoint of it cannot travel: {error}") from None


def _nothing(passes: int) -> str:
    if passes:
        return (
            f"pass {passes + 1} of the pipeline yielded nothing: it can be iterated only once, and is measured in"
            " several passes. Return an object whose __iter__ starts afresh (a DataFlow, a list), not a generator"
        )
    return "the pipeline yielded no datapoint in its first pass; is its folder empty, or does a filter drop everything?"


def structure_of(datapoint: Any) -> str:
    """Write for people what a datapoint consists of: [uint8 (224, 224, 3), int]."""
    named = isinstance(datapoint, dict)
    parts = [
        (f"{key}: " if named else "") + _part(value)
        for key, value in (datapoint.items() if named else enumerate(datapoint))
    ]
    shown = parts[:COMPONENTS_SHOWN] + (["..."] if len(parts) > COMPONENTS_SHOWN else [])
    return ("{%s}" if named else "[%s]") % ", ".join(shown)


def _part(value: Any) -> str:
    if getattr(value, "ndim", 0):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def _consume(tallies: Tallies, queue: int, timeout: float, report: Report) -> None:
    """Host a broker, say where, and count what comes for ever."""
    logging.getLogger("dfserve").setLevel(logging.ERROR)  # that it waits is no news
    numbers, count, clock = tallies.numbers, 0, time.monotonic
    with RemoteDataZMQ("tcp://127.0.0.1:0", timeout=timeout, queue_bytes=queue) as data:
        report({"address": data.endpoints[0]})
        for _ in data:
            count += 1
            numbers[2] = data.waited
            numbers[1] = clock()
            numbers[0] = count


def _supervise(flow: DataFlow, address: str, workers: int, _report: Report) -> None:
    """Be `dfserve produce`; what it has to say, but for errors, is no news here."""
    logging.getLogger("dfserve").setLevel(logging.ERROR)
    Supervisor(Plan(flow, Uplink(address), workers), Board(workers)).run()
