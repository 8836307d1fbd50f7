"""Owns MapData in worker processes: MultiProcessMapData, also under tensorpack's name MultiProcessMapDataZMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.map_base import ParallelMapData
from dfserve.dataflow.parallel.process_pool import ProcessPool
from dfserve.dataflow.parallel.window import Finished
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, PipelineError


class MultiProcessMapData(ParallelMapData):
    """MapData whose function runs in ``num_proc`` worker processes, while the source is read in this one.

    ``strict=True`` gives in each pass exactly what ``MapData(ds, map_func)`` gives, in another order; ``ordered=True``
    in the same order. With neither, it is an endless stream of datapoints of repeated passes.

    Datapoints travel through shared memory and pipes, in the codec of ``dfserve.wire``; one that it refuses (an object
    of your own class) is pickled. Workers are started by ``reset_state()``, as ``multiprocessing`` is set to (fork,
    forkserver or spawn), draw different random numbers, and end with this object or this process, however that ends.
    """

    _eager = True  # started early: the less a process has done, the safer it is to fork

    @old_keywords(nr_proc="num_proc")
    def __init__(
        self,
        ds: Any,
        num_proc: int | None = None,
        map_func: Callable[[Any], Datapoint | None] | None = None,
        *,
        buffer_size: int = 200,
        strict: bool = False,
        ordered: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        """Map ``ds``.

        Args:
            ds: a DataFlow.
            num_proc: worker processes. Required.
            map_func: takes a datapoint, returns one, or None to drop it. Required. It may change its argument.
            buffer_size: datapoints that may be in flight: read from ``ds`` and not yet yielded.
            strict: yield exactly the mapped datapoints of one pass.
            ordered: yield them in the order of ``ds``; implies ``strict``.
            on_error: what to do with a datapoint for which the function raises: ``"raise"`` a PipelineError,
                ``"skip"``, or a ``SkipErrors`` with limits.

        Raises:
            ConfigError: ``num_proc`` or ``map_func`` is missing, or a number is below 1.
        """
        super().__init__(ds, buffer_size, strict=strict, ordered=ordered, on_error=on_error)
        if map_func is None:
            raise ConfigError(f"{type(self).__name__} needs map_func, the function to apply")
        self.num_proc = positive(num_proc, "num_proc")
        self.map_func = map_func

    def _open_pool(self) -> ProcessPool:
        return ProcessPool(type(self).__name__, self.num_proc, self._function(), self._buffer_size)

    def _function(self) -> Callable[[Any], Datapoint | None]:
        """Return what the workers apply to each datapoint."""
        return self.map_func

    def _failure(self, finished: Finished) -> BaseException:
        error = super()._failure(finished)
        if isinstance(error, PipelineError) and not error.key:
            # The worker had the datapoint, which has no name; its place in the pass is known here.
            error.key = key_of(error)
            error.args = (f"{error.kind} at {error.key}{error.args[0][len(error.kind) :]}",)
        return error


MultiProcessMapDataZMQ = MultiProcessMapData
