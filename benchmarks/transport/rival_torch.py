"""Owns PyTorch's side: a DataLoader with one worker process, which hands tensors over in shared memory.

`batch_size=None` sends each datapoint by itself, as it comes from the dataset. The worker turns arrays into tensors
without a copy; memory is not pinned, since nothing here goes to a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport.cases import CASES, Source

PREFETCH = 8  # datapoints ahead; PyTorch's default is 2


def receive(address: str, case: str, batch: int | None = None) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints, or batches, for ever."""
    from torch.utils.data import DataLoader, IterableDataset

    class Endless(IterableDataset):  # type: ignore[type-arg]  # not subscriptable in every version
        def __iter__(self) -> Iterator[Any]:
            source = Source(CASES[case].make())
            while True:
                yield from source

    return iter(DataLoader(Endless(), batch_size=batch, num_workers=1, prefetch_factor=PREFETCH))
