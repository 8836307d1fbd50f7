"""Owns the operator that runs whole pipelines in threads: MultiThreadRunner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from dfserve.dataflow.adapt import as_source
from dfserve.dataflow.base import DataFlow, Datapoint, known_length
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.parallel.conveyor import Conveyor, End
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.ownership import check_newest, check_reset, end_with
from dfserve.dataflow.repeat import RepeatedData

_OF_THE_PROCESS = frozenset({"_conveyor", "_pid", "_pass", "_end"})  # attributes


class MultiThreadRunner(DataFlow):
    """Pipelines in threads: for pipelines that wait, or work without the GIL.

    With one thread, each ``iter()`` is a pass of the pipeline: the same datapoints in the same order, whether it knows
    its length or not; the next pass is prepared meanwhile. With several, each repeats a pipeline of its own without
    end, and a pass is as many datapoints as the length of one (without end if it has none): right for training on
    independent random datapoints, wrong for an exact set, for which there is MultiThreadMapData.

    ``reset_state()`` makes the pipelines and resets them one after another, so that with ``fix_rng_seed`` each thread
    has the same random stream in every run. The threads start with the first iteration, are daemons, and end with
    another ``reset_state()``, with this object, or with the program.

    An error of a pipeline ends the iterator; the next ``iter()`` works as ever. Only the newest iterator works: an
    older one raises DfserveError when it is advanced.
    """

    _conveyor: Conveyor | None = None
    _pid: int | None = None  # of the process that was reset
    _pass = -1  # the number of the newest iterator
    _end: Callable[[], object] = bool  # nothing to end yet

    @old_keywords(nr_prefetch="num_prefetch", nr_thread="num_thread")
    def __init__(self, get_df: Callable[[], Any], num_prefetch: int, num_thread: int) -> None:
        """Run what ``get_df`` returns.

        Args:
            get_df: makes a DataFlow (or what may stand for one), called once for each thread and reset_state(), and
                for ``len()`` before that. It must make a new one each time. The threads refer to what it makes: if that
                refers to this object, neither is collected.
            num_prefetch: datapoints that all threads together prepare ahead.
            num_thread: threads.

        Raises:
            ConfigError: a number is below 1.
        """
        self._get_df = get_df
        self._num_prefetch = positive(num_prefetch, "num_prefetch")
        self.num_thread = positive(num_thread, "num_thread")
        self._pipelines: list[Any] = []

    def __len__(self) -> int:
        if not self._pipelines:
            self._pipelines = [as_source(self._get_df())]
        return len(self._pipelines[0])

    def reset_state(self) -> None:
        """Make the pipelines and prepare to run them. Called again, it ends the threads, and begins anew."""
        self._end()
        if self._pid is not None:
            self._pipelines = []  # they may be in the middle of a pass
        self._pass, self._pid = -1, None
        while len(self._pipelines) < self.num_thread:
            self._pipelines.append(as_source(self._get_df()))
        for pipeline in self._pipelines:
            pipeline.reset_state()
        run = self._pipelines if self.num_thread == 1 else [RepeatedData(each, -1) for each in self._pipelines]
        self._conveyor = Conveyor(type(self).__name__, run, self._num_prefetch)
        self._end = end_with(self, self._conveyor.close)
        self._pid = os.getpid()

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DfserveError: ``reset_state()`` was not called in this process; or a newer iterator has taken over.
            DatapointError: with several threads, a whole pass of a pipeline yields nothing.
            WorkerLost: a thread is gone; ``reset_state()`` starts new ones.
            Exception: what a pipeline raises.
        """
        check_reset(self, self._pid)
        conveyor = self._conveyor
        assert conveyor is not None
        self._pass += 1
        if self.num_thread > 1:
            conveyor.revive()
            return self._iterate(conveyor, self._pass, 0, known_length(self))
        conveyor.give_up_before(self._pass)
        conveyor.permit(self._pass + 1)
        return self._iterate(conveyor, self._pass, self._pass, None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: the copy is one that was not reset yet."""
        state = {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}
        return {**state, "_pipelines": []}

    def _iterate(self, conveyor: Conveyor, turn: int, number: int, left: int | None) -> Iterator[Datapoint]:
        """Yield what comes under ``number``, at most ``left`` datapoints."""
        while left is None or left > 0:
            check_newest(self, self._conveyor is conveyor and self._pass == turn)
            check_reset(self, self._pid)
            conveyor.start()
            came_from, item = conveyor.take()
            if came_from < number:  # a pass that was given up
                continue
            if not isinstance(item, End):
                yield item
                left = None if left is None else left - 1
            elif item.error is None:
                return
            else:
                raise item.error
