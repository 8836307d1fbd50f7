"""Owns tensorpack's side: the same pipeline with the import changed, through its MultiProcessRunnerZMQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.images.work import pipeline


def runner_zmq(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images for ever."""
    from tensorpack import dataflow

    data = dataflow.MultiProcessRunnerZMQ(pipeline(dataflow, files), workers)
    data.reset_state()
    while True:
        for image, _ in data:
            yield image
