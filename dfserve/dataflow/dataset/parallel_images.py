"""Owns NetworkImages fetched by many threads: the list of URLs as a source, and the threads' operator over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dfserve.dataflow.base import DataFlow, Datapoint
from dfserve.dataflow.dataset.fetch import require_client
from dfserve.dataflow.decoding import import_cv2
from dfserve.dataflow.parallel.thread_map import MultiThreadMapData

if TYPE_CHECKING:
    from dfserve.dataflow.dataset.network_images import NetworkImages


class Listed(DataFlow):
    """The datapoints of NetworkImages as they are listed, in the order of the next pass."""

    def __init__(self, images: NetworkImages) -> None:
        """List ``images``."""
        self.images = images

    def reset_state(self) -> None:
        self.images.reset_state()

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Datapoint]:
        # A package that is missing is no failure of an item, and is not for the policy.
        require_client()
        if self.images.decode:
            import_cv2()
        order = np.arange(len(self))
        if self.images.shuffle:
            self.images.rng.shuffle(order)
        datapoints = self.images.datapoints
        for index in order.tolist():
            yield datapoints[index]


class ParallelImages(MultiThreadMapData):
    """NetworkImages that many threads fetch; ``NetworkImages.parallel()`` makes it."""

    def __init__(self, images: NetworkImages, num_threads: int, buffer_size: int, strict: bool) -> None:
        """Fetch ``images``; the arguments are those of ``NetworkImages.parallel()``."""
        super().__init__(
            Listed(images),
            num_threads,
            images._load,
            buffer_size=buffer_size,
            strict=strict,
            on_error=images._on_error,
        )
        self.images = images

    def partitioning(self, num_partition: int, partition_index: int = 0) -> ParallelImages:
        """Return what fetches one of ``num_partition`` parts; see ``NetworkImages.partitioning()``."""
        part = self.images.partitioning(num_partition, partition_index)
        return ParallelImages(part, self.num_thread, self._buffer_size, self._strict)
