"""Owns the operators that run a whole pipeline in other processes: MultiProcessRunnerZMQ and MultiProcessRunner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from dfserve.dataflow.base import DataFlow, Datapoint, ProxyDataFlow, known_length
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.crew import Crew
from dfserve.dataflow.parallel.leash import Leash
from dfserve.dataflow.parallel.link import Link
from dfserve.dataflow.parallel.messages import END, FAILED, LAST, Sent
from dfserve.dataflow.parallel.outlet import Outlet
from dfserve.dataflow.parallel.ownership import check_newest, check_reset
from dfserve.dataflow.repeat import RepeatedData


class _ProcessRunner(ProxyDataFlow):
    """A pipeline in worker processes.

    With one worker, each ``iter()`` is a pass of the pipeline: the same datapoints in the same order, whether it knows
    its length or not; the next pass is prepared meanwhile. With several, each runs the pipeline for itself, without
    end, and a pass is as many datapoints as the pipeline's length (without end if it has none): right for training on
    independent random datapoints, wrong for an exact set, for which there is MultiProcessMapData.

    Received arrays may be written to. They lie in memory that is shared with the worker and goes back to it when
    nothing refers to them any more; if the workers' 256 MiB each are all kept, datapoints are copied instead.
    """

    def __init__(self, ds: Any, num_proc: int, window: int) -> None:
        super().__init__(ds)
        self.num_proc = positive(num_proc, "num_proc")
        self._window = window
        self._crew: Crew | None = None
        self._pass = 0
        self._rows: Iterator[Datapoint] = iter(())  # the rest of a block of several workers'
        self._open: tuple[Link, int] | None = None  # whose block was opened, and how many it has

    def reset_state(self) -> None:
        """Start the workers, in which the pipeline is reset; those of an earlier call are ended."""
        if self._crew is not None:
            self._crew.close()
        self._pass, self._rows, self._open = 0, iter(()), None
        run = run_passes if self.num_proc == 1 else run_forever
        self._crew = Crew(type(self).__name__, self.num_proc, run, (self.ds,), self._window)

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass; an older iterator of this object that goes on raises DfserveError.

        Raises:
            PipelineError: the pipeline raised; it has key, worker and remote traceback. A new pass may work.
            WorkerLost: a worker died; a new pass starts new ones.
            DfserveError: ``reset_state()`` was not called in this process.
        """
        crew = self._working()
        mine = self._pass = self._pass + 1
        if self.num_proc == 1:
            with crew.whole_steps():
                self._settle()
        for link in crew.links:
            link.want(mine)
        return self._whole(crew, mine) if self.num_proc == 1 else self._share(crew, mine, known_length(self.ds))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_crew": None, "_pass": 0, "_rows": iter(()), "_open": None}

    def _working(self) -> Crew:
        crew = self._crew
        check_reset(self, None if crew is None else crew.pid)
        assert crew is not None
        if not crew.whole:
            self.reset_state()
            return self._working()
        return crew

    def _whole(self, crew: Crew, mine: int) -> Iterator[Datapoint]:
        self._still(mine)
        while True:
            with crew.whole_steps():
                link, sent = crew.receive()
                if sent.kind == FAILED and sent.label in (LAST, mine):
                    _raise(crew, link, sent)
                if sent.label < mine:  # of a pass that was given up
                    link.discard(sent)
                    continue
                if sent.kind == END:
                    return
                self._open = (link, sent.count)
                datapoints = link.datapoints(sent)
            for datapoint in datapoints:
                yield datapoint
                self._still(mine)
            with crew.whole_steps():
                del datapoints
                self._settle()

    def _settle(self) -> None:
        """Count a block whose datapoints are handed out, or given up."""
        if self._open is not None:
            (link, count), self._open = self._open, None
            link.words.consumed(count)

    def _share(self, crew: Crew, mine: int, left: int | None) -> Iterator[Datapoint]:
        self._still(mine)
        while left is None or left > 0:
            for datapoint in self._rows:
                yield datapoint
                self._still(mine)
                if left is not None:
                    left -= 1
                    if not left:
                        return
            with crew.whole_steps():
                self._settle()
                link, sent = crew.receive()
                if sent.kind == FAILED:
                    _raise(crew, link, sent)
                self._open = (link, sent.count)
                self._rows = iter(link.datapoints(sent))

    def _still(self, mine: int) -> None:
        check_newest(self, self._pass == mine)


def _raise(crew: Crew, link: Link, sent: Sent) -> NoReturn:
    error = link.error(sent)
    if sent.label == LAST:
        crew.close()  # the worker has ended, and the next pass starts new ones
    raise error


class MultiProcessRunnerZMQ(_ProcessRunner):
    """A pipeline in ``num_proc`` worker processes.

    With one worker, each ``iter()`` is a pass of the pipeline: the same datapoints in the same order. With several,
    each runs the pipeline for itself, and a pass is as many datapoints as the pipeline's length: right for training on
    independent random datapoints, wrong for an exact set, for which there is ``MultiProcessMapData``.

    Datapoints come through shared memory and a pipe; the name is tensorpack's. Workers are started by
    ``reset_state()``, as ``multiprocessing`` is set to (fork, forkserver or spawn), draw different random numbers, and
    end with this object or this process, however that ends. Runners may be nested.
    """

    @old_keywords(nr_proc="num_proc")
    def __init__(self, ds: Any, num_proc: int = 1, hwm: int = 50) -> None:
        """Run ``ds``.

        Args:
            ds: a DataFlow.
            num_proc: worker processes.
            hwm: datapoints that each worker prepares ahead.

        Raises:
            ConfigError: one of the numbers is below 1.
        """
        super().__init__(ds, num_proc, positive(hwm, "hwm"))


class MultiProcessRunner(_ProcessRunner):
    """As MultiProcessRunnerZMQ, with tensorpack's other signature."""

    @old_keywords(nr_prefetch="num_prefetch", nr_proc="num_proc")
    def __init__(self, ds: Any, num_prefetch: int, num_proc: int) -> None:
        """Run ``ds``.

        Args:
            ds: a DataFlow.
            num_prefetch: datapoints that all workers together prepare ahead; at least one for each.
            num_proc: worker processes.

        Raises:
            ConfigError: one of the numbers is below 1.
        """
        each = positive(num_prefetch, "num_prefetch") // positive(num_proc, "num_proc")
        super().__init__(ds, num_proc, max(1, each))


def run_passes(outlet: Outlet, leash: Leash, ds: DataFlow) -> None:
    """Be the only worker: run one pass after another, at most one ahead of what is wanted."""
    ds.reset_state()
    number = 0
    while True:
        number = max(number + 1, leash.wanted)
        ahead = number - 1
        leash.wait_for(lambda: leash.wanted >= ahead)  # noqa: B023  # called before the loop goes on
        number = max(number, leash.wanted)
        outlet.label = number
        _run_pass(outlet, leash, ds, number)


def _run_pass(outlet: Outlet, leash: Leash, ds: DataFlow, number: int) -> None:
    position = 0
    try:
        for datapoint in ds:
            outlet.put(datapoint)
            position += 1
            if leash.wanted > number:
                outlet.discard()
                return
    except Exception as error:  # noqa: BLE001  # whatever the pipeline raises is told to the parent
        attach_key(error, None, position)
        outlet.failed(error)
        leash.wait_for(lambda: leash.wanted > number)
    else:
        outlet.end()


def run_forever(outlet: Outlet, leash: Leash, ds: DataFlow) -> None:
    """Be one of several workers: run passes without end."""
    ds.reset_state()
    endless = RepeatedData(ds, -1)
    while True:
        position = 0
        try:
            for datapoint in endless:
                outlet.put(datapoint)
                position += 1
        except Exception as error:  # noqa: BLE001  # as above
            attach_key(error, None, position)
            asked = leash.wanted
            outlet.failed(error)
            leash.wait_for(lambda: leash.wanted > asked)  # noqa: B023  # as above
