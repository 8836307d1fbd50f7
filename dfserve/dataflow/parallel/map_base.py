"""Owns the parallel map over any kind of worker: its iterators, and when its workers start and end."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.flow import Flow
from dfserve.dataflow.parallel.ownership import check_newest, check_reset, end_with
from dfserve.dataflow.parallel.pool import Pool
from dfserve.dataflow.parallel.window import Finished, Window
from dfserve.dataflow.policy import OnError, Tally

__all__ = ["ParallelMapData", "Pool"]

_OF_THE_PROCESS = frozenset({"_flow", "_turn", "_end_pool"})  # attributes


class ParallelMapData(ProxyDataFlow):
    """The base of MapData in threads or processes: a subclass says how to open a pool of them.

    The consumer iterates the source itself, and submits up to ``buffer_size`` datapoints ahead. Workers start with the
    first iteration, in the process that iterates; they end with the operator, the program, or another
    ``reset_state()``.

    An error of the function surfaces where its datapoint would, one of the source after everything that was read
    before it. Either ends the iterator; the next ``iter()`` works as ever. Only the newest iterator works: an older one
    raises DfserveError when it is advanced.
    """

    _eager = False  # open the pool in reset_state(), not with the first iteration
    _flow: Flow | None = None
    _turn: object = None  # of the iterator that may go on
    _end_pool: Callable[[], object] = bool  # nothing to close yet

    def __init__(
        self, ds: Any, buffer_size: int, *, strict: bool = False, ordered: bool = False, on_error: OnError = "raise"
    ) -> None:
        """Prepare a map; nothing starts yet.

        Args:
            ds: a DataFlow.
            buffer_size: datapoints that may be in flight: read from ``ds`` and not yet yielded.
            strict: a pass yields exactly what a pass over ``ds`` gives, and ends. Otherwise ``ds`` is repeated for
                ever, and what one iterator has read ahead, the next one yields.
            ordered: as ``strict``, and in the order of ``ds``.
            on_error: what to do with a datapoint for which the function raises: ``"raise"``, ``"skip"``, or a
                ``SkipErrors``. What is no ``Exception`` (SystemExit, KeyboardInterrupt) is raised in any case.

        Raises:
            ConfigError: ``buffer_size`` is below 1.
        """
        super().__init__(ds)
        self._buffer_size = positive(buffer_size, "buffer_size")
        self._strict = strict or ordered
        self._ordered = ordered
        self._tally = Tally(on_error, type(self).__name__)

    @abstractmethod
    def _open_pool(self) -> Pool:
        """Start the workers in this process."""

    def _failure(self, finished: Finished) -> BaseException:
        """Return the error of an outcome, with the key of its datapoint attached."""
        error = finished.outcome.error
        assert error is not None
        attach_key(error, finished.datapoint, finished.position)
        return error

    def reset_state(self) -> None:
        """Prepare this process to iterate. Called again, it ends the workers and forgets what is in flight."""
        super().reset_state()
        self._turn = None
        self._end_pool()
        self._flow = self._new_flow()
        if self._eager:
            self._start(self._flow)

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass; or, without ``strict``, go on with the endless stream.

        Raises:
            DfserveError: ``reset_state()`` was not called in this process; or a newer iterator has taken over.
            DatapointError: without ``strict``, a whole pass over the source yields nothing.
            TooManyErrors: more was skipped than the limits of ``on_error`` allow.
            WorkerLost: a worker died; the next ``iter()`` starts new ones.
            Exception: what the function or the source raises.
        """
        flow = self._flow
        check_reset(self, None if flow is None else flow.pid)
        assert flow is not None
        self._turn = turn = object()
        return self._iterate(flow, turn)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: the copy is one that was not reset yet."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}

    def _new_flow(self) -> Flow:
        window = Window(self._buffer_size, ordered=self._ordered)
        return Flow(self.ds, window, endless=not self._strict)

    def _iterate(self, flow: Flow, turn: object) -> Iterator[Datapoint]:
        pool = None
        try:
            while True:
                check_newest(self, self._turn is turn)
                check_reset(self, flow.pid)
                flow.sound = False
                if pool is None:
                    flow.begin()
                    pool = self._start(flow)
                finished = flow.step(pool)
                flow.sound = True
                if finished is None:
                    break
                if (mapped := self._judge(finished)) is not None:
                    yield mapped
            flow.raise_deferred()
        finally:
            if self._turn is turn and flow.pid == os.getpid():
                self._turn = None
                self._leave(flow)

    def _start(self, flow: Flow) -> Pool:
        """Return the pool; open it if this was not done yet."""
        if flow.pool is None:
            flow.pool = self._open_pool()
            self._end_pool = end_with(self, flow.pool.close)
        return flow.pool

    def _leave(self, flow: Flow) -> None:
        if not flow.sound:
            self._end_pool()
            self._flow = self._new_flow()
        elif self._strict:
            flow.abandon()

    def _judge(self, finished: Finished) -> Datapoint | None:
        """Return what is to be yielded; None for nothing."""
        outcome = finished.outcome
        if outcome.error is None:
            self._tally.good()
            return outcome.value
        error = self._failure(finished)
        if not isinstance(error, Exception):
            raise error
        self._tally.bad(error, outcome.trace)
        return None
