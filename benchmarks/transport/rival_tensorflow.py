"""Owns tf.data service's side: dispatcher and worker in the producer's process, NumPy arrays in the consumer's.

As its guide advises for a fast network: no compression (the default would take CPU time for it), a prefetch to the
consumer, no sharding (each worker has the whole, endless dataset). The source is one tensor again and again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.transport.cases import Source

DATASET = "benchmark"  # its id at the dispatcher, by which the consumer asks for it
RETRY = 0.2  # seconds between attempts to find it: the producer's process takes a while to import tensorflow
TRIES = 200


def send(source: Source, address: str, batch: int = 0) -> None:
    """Serve for ever: the dispatcher at ``address``, and one worker."""
    import tensorflow as tf

    service = tf.data.experimental.service
    port = int(address.rsplit(":", 1)[1])
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=dispatcher.target.partition("://")[2]))
    datapoint = tuple(np.stack([part] * batch) if batch else part for part in next(iter(source)))
    dataset = tf.data.Dataset.from_tensors(datapoint).repeat()
    service.register_dataset(dispatcher.target, dataset, compression=None, dataset_id=DATASET)
    worker.join()


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever."""
    import tensorflow as tf

    dataset = found(tf, address.replace("tcp", "grpc"))
    yield from dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def found(tf: Any, address: str) -> Any:
    """Return the producer's dataset, as soon as it is registered."""
    service = tf.data.experimental.service
    early = (tf.errors.NotFoundError, tf.errors.UnavailableError, tf.errors.DeadlineExceededError, ValueError)
    for _ in range(TRIES):
        with contextlib.suppress(*early):
            return service.from_dataset_id(service.ShardingPolicy.OFF, address, DATASET)
        time.sleep(RETRY)
    raise TimeoutError(f"no dataset at {address}")
