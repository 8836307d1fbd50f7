"""Owns tf.data service's side with batches of 64 on the way, which the consumer takes apart into datapoints again.

This is how its guide would have small datapoints sent: each element of a dataset is a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.transport import rival_tensorflow
from benchmarks.transport.apart import BATCH, apart
from benchmarks.transport.cases import Source


def send(source: Source, address: str) -> None:
    """Serve for ever."""
    rival_tensorflow.send(source, address, BATCH)


def receive(address: str, case: str) -> Iterator[Any]:
    """Yield datapoints for ever."""
    return apart(rival_tensorflow.receive(address, case))
