"""Owns what runs in the consumer's process of one cell of the grid: `python -m benchmarks.network.peer ...`."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.counting import print_and_end
from benchmarks.loops import looped
from benchmarks.received import received
from dfserve.dataflow import MultiProcessRunnerZMQ
from dfserve.dataflow.dataset import NetworkImages, decode_image

cv2.setNumThreads(0)


def fetched(urls: Sequence[str], threads: int, processes: int) -> Iterator[Any]:
    """Yield images for ever."""
    data = MultiProcessRunnerZMQ(NetworkImages([[url, 7] for url in urls]).parallel(threads), processes)
    data.reset_state()
    while True:
        for image, _ in data:
            yield image


def decoder(files: Sequence[str]) -> Callable[[], Any]:
    """Return a function that decodes one of the images, which are in memory."""
    encoded = [Path(file).read_bytes() for file in files]
    return lambda: decode_image(random.choice(encoded))


def main(urls: str, files: str, threads: str, processes: str, seconds: str) -> None:
    """Fetch and decode with so many threads in so many processes; print the figures as JSON and exit.

    With 0 threads nothing is fetched: plain loops decode the files.
    """
    os.environ["no_proxy"] = "127.0.0.1"
    if int(threads):
        images = fetched(json.loads(Path(urls).read_text()), int(threads), int(processes))
        print_and_end(received(images, float(seconds)))
    print_and_end(looped(decoder, (json.loads(Path(files).read_text()),), int(processes), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
