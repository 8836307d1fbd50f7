"""Owns dfserve's sides: each of its parallel operators over the same work, in as many workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.images.work import Augment, pipeline
from dfserve import dataflow

PREFETCH = 50  # datapoints ahead of the consumer, for each worker


def runner_zmq(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images of MultiProcessRunnerZMQ for ever."""
    return _images(dataflow.MultiProcessRunnerZMQ(pipeline(dataflow, files), workers))


def runner(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images of MultiProcessRunner for ever."""
    return _images(dataflow.MultiProcessRunner(pipeline(dataflow, files), PREFETCH * workers, workers))


def process_map(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images of MultiProcessMapData for ever."""
    return _images(dataflow.MultiProcessMapData(_listed(files), workers, Augment(dataflow.imgaug)))


def thread_map(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images of MultiThreadMapData for ever."""
    return _images(dataflow.MultiThreadMapData(_listed(files), workers, Augment(dataflow.imgaug)))


def _listed(files: Sequence[str]) -> Any:
    return dataflow.DataFromList([[file, 7] for file in files], shuffle=True)


def _images(data: Any) -> Iterator[Any]:
    data.reset_state()
    while True:
        for image, _ in data:
            yield image
