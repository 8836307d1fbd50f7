"""Owns dfserve's sides: each of its parallel operators, and producers with a broker, in as many workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.images.work import Augment, pipeline
from benchmarks.processes import free_port
from dfserve import dataflow
from dfserve.consumer.remote import RemoteDataZMQ

LISTING = "DFSERVE_BENCH_LISTING"  # variable: the JSON file with the list of files
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


def produced(files: Sequence[str], workers: int) -> Iterator[Any]:  # noqa: ARG001  # as the other sides'
    """Yield images of `dfserve produce` for ever, which come over tcp to the broker that is hosted here."""
    address = f"tcp://127.0.0.1:{free_port()}"
    factory = f"{__name__}:listed_pipeline"
    command = [sys.executable, "-m", "dfserve.cli", "produce", factory, "--to", address, "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as producer, RemoteDataZMQ(address) as data:
        try:
            for image, _ in data:
                yield image
        finally:
            producer.kill()  # its workers end with it


def listed_pipeline() -> Any:
    """Return the tutorial's pipeline over the files of the list that this process's environment names."""
    return pipeline(dataflow, json.loads(Path(os.environ[LISTING]).read_text()))


def _listed(files: Sequence[str]) -> Any:
    return dataflow.DataFromList([[file, 7] for file in files], shuffle=True)


def _images(data: Any) -> Iterator[Any]:
    data.reset_state()
    while True:
        for image, _ in data:
            yield image
