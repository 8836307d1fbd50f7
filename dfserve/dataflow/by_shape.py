"""Owns batches of datapoints that are grouped by shape."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.batch import BatchData
from dfserve.dataflow.failures import attach_key
from dfserve.errors import DatapointError

log = logging.getLogger("dfserve.dataflow")

_SHOWN = 5  # shapes named in the log; there may be thousands


class BatchDataByShape(BatchData):
    """Batches of datapoints one component of which has the same shape, each batch full.

    Datapoints wait in memory until there are ``batch_size`` of their shape. What waits at the end of a pass is dropped
    and counted in the log. (tensorpack keeps it for the next pass.) ``len()`` counts as if all had one shape.
    """

    def __init__(self, ds: Any, batch_size: int, idx: int | str) -> None:
        """Batch the datapoints of ``ds``.

        Args:
            ds: a DataFlow of lists, tuples or dicts.
            batch_size: datapoints in a batch.
            idx: the position or key of the component whose shape counts; the others must fit together by themselves.

        Raises:
            ConfigError: as ``BatchData``.
        """
        super().__init__(ds, batch_size)
        self.idx = idx

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DatapointError: there is no component ``idx`` or it has no shape, or datapoints do not fit together.
        """
        waiting: dict[tuple[int, ...], list[Datapoint]] = {}
        for position, datapoint in enumerate(self.ds):
            shape = self._shape(datapoint, position)
            group = waiting.setdefault(shape, [])
            group.append(datapoint)
            if len(group) == self.batch_size:
                yield self.aggregate_batch(waiting.pop(shape))
        if waiting:
            _tell(waiting, self.batch_size)

    def _shape(self, datapoint: Any, position: int) -> tuple[int, ...]:
        try:
            return tuple(datapoint[self.idx].shape)
        except (LookupError, TypeError, AttributeError) as cause:
            error = DatapointError(
                f"BatchDataByShape groups by the shape of component {self.idx!r}, which datapoint {position} does not"
                f" have ({type(cause).__name__}: {cause}); give the idx of an array"
            )
            attach_key(error, datapoint, position)
            raise error from cause


def _tell(waiting: dict[tuple[int, ...], list[Datapoint]], batch_size: int) -> None:
    counts = sorted(((len(group), shape) for shape, group in waiting.items()), reverse=True)
    log.warning(
        "BatchDataByShape drops %d datapoints at the end of the pass: fewer than batch_size=%d of each of %d shapes:"
        " %s%s",
        sum(count for count, _ in counts),
        batch_size,
        len(counts),
        ", ".join(f"{count} of {shape}" for count, shape in counts[:_SHOWN]),
        ", ..." if len(counts) > _SHOWN else "",
    )
