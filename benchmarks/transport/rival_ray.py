"""Owns Ray Data's side: one worker makes blocks of NumPy batches, and the driver iterates over them as they come.

As its performance tips advise: `map_batches` (not `map`), one block after another streamed through the object store
(shared memory, from which the driver's arrays are views), whole blocks as batches, a few of them fetched ahead. One
task, on the one CPU that Ray is given, yields the same batch for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.transport.cases import CASES, Source

BLOCK_BYTES = 16 << 20  # of a block's arrays: between Ray's 1 MiB and 128 MiB
AHEAD = 4  # blocks fetched ahead
STORE = 2 << 30  # bytes of the object store


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever, as views of the batches."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=STORE, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    datapoint = next(iter(Source(CASES[case].make())))
    rows = max(1, BLOCK_BYTES // CASES[case].nbytes)
    batch = {f"part{number}": np.stack([part] * rows) for number, part in enumerate(datapoint)}
    made = ray.put(batch)

    def make(_: Any) -> Iterator[Any]:
        found = ray.get(made)
        while True:
            yield found

    blocks = ray.data.from_numpy(np.arange(1)).map_batches(make, batch_format="numpy")
    for found in blocks.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=AHEAD):
        for parts in zip(*(found[part] for part in batch), strict=True):
            yield list(parts)
