"""Owns MapData and BatchData together in worker processes: MultiProcessMapAndBatchData."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.batch import BatchData
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.parallel.counts import positive
from dfserve.dataflow.parallel.process_map import MultiProcessMapData
from dfserve.dataflow.parallel.window import Finished
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, DatapointError, PipelineError

_GATHERED: list[Any] = []  # what a worker answers to a datapoint that waits for its batch: a list of no components


class MultiProcessMapAndBatchData(MultiProcessMapData):
    """MapData and BatchData in worker processes, which map datapoints and stack what they have mapped.

    An endless stream of batches: each is made by one worker, of the datapoints that came its way, also from several
    passes over ``ds``. With one worker it is ``BatchData(MapData(RepeatedData(ds, -1), map_func), batch_size)``, in
    that order. For one pass, exactly, use ``BatchData(MultiProcessMapData(..., strict=True), batch_size)``.
    """

    @old_keywords(nr_proc="num_proc")
    def __init__(
        self,
        ds: Any,
        num_proc: int,
        map_func: Callable[[Any], Datapoint | None],
        batch_size: int,
        buffer_size: int | None = None,
        *,
        on_error: OnError = "raise",
    ) -> None:
        """Map and batch ``ds``.

        Args:
            ds: a DataFlow.
            num_proc: worker processes.
            map_func: takes a datapoint, returns one, or None to drop it.
            batch_size: datapoints in a batch.
            buffer_size: datapoints, not batches, that may be in flight. Default: 10 batches.
            on_error: what to do with a datapoint for which the function raises: ``"raise"`` a PipelineError,
                ``"skip"``, or a ``SkipErrors`` with limits. Datapoints that do not fit into one batch always raise.

        Raises:
            ConfigError: a number is below 1, or ``buffer_size`` is not above ``batch_size``.
        """
        self.batch_size = positive(batch_size, "batch_size")
        buffer_size = 10 * self.batch_size if buffer_size is None else positive(buffer_size, "buffer_size")
        if buffer_size <= self.batch_size:
            raise ConfigError(f"buffer_size {buffer_size} must be above batch_size {batch_size}: it counts datapoints")
        super().__init__(ds, num_proc, map_func, buffer_size=buffer_size, on_error=on_error)

    def __len__(self) -> int:
        return len(self.ds) // self.batch_size

    def _function(self) -> Callable[[Any], Datapoint | None]:
        return _MapAndBatch(self.map_func, self.batch_size)

    def _judge(self, finished: Finished) -> Datapoint | None:
        error = finished.outcome.error
        if isinstance(error, PipelineError) and error.kind == UnfitBatchError.__name__:
            raise error  # not the failure of one datapoint, and not to be skipped: all of the batch is lost by it
        mapped = super()._judge(finished)
        return None if isinstance(mapped, list) and mapped == _GATHERED else mapped


MultiProcessMapAndBatchDataZMQ = MultiProcessMapAndBatchData


class UnfitBatchError(DatapointError):
    """Datapoints that do not fit into one batch, in a worker; the parent raises a PipelineError of this kind."""


class _MapAndBatch:
    """What a worker applies to a datapoint: None if it is dropped, the batch that it completes, or ``_GATHERED``."""

    def __init__(self, func: Callable[[Any], Datapoint | None], batch_size: int) -> None:
        self._func = func
        self._batch_size = batch_size
        self._gathered: list[Datapoint] = []

    def __call__(self, datapoint: Any) -> Datapoint | None:
        mapped = self._func(datapoint)
        if mapped is None:
            return None
        self._gathered.append(mapped)
        if len(self._gathered) < self._batch_size:
            return _GATHERED
        batch, self._gathered = self._gathered, []
        try:
            return BatchData.aggregate_batch(batch)
        except DatapointError as error:
            raise UnfitBatchError(str(error)) from error
