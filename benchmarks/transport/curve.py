"""Owns dfserve's side with keys: as `tcp`, encrypted; the keys are made once for a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.transport.cases import Source
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.keys import make_keys
from dfserve.producer.send import send_dataflow_zmq

FOLDER = "BENCHMARK_KEYS"  # the variable that tells both processes where the keys are


@contextmanager
def keys() -> Iterator[None]:
    """Make keys for the processes that are started meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        make_keys(Path(folder), ["producer"])
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def send(source: Source, address: str) -> None:
    """Send for ever."""
    keys = Path(os.environ[FOLDER]) / "clients" / "producer.secret"
    send_dataflow_zmq(source, address, keys=keys, shared_memory=False)


def receive(address: str, case: str) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield datapoints for ever."""
    with RemoteDataZMQ(address, keys=os.environ[FOLDER]) as data:
        yield from data
