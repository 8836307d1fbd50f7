"""Owns the demo's pipeline: photographs of a folder, decoded, cropped at random, resized and flipped.

``dfserve produce dfserve.cli.demo_pipeline:make --arg folder=/photos`` runs it on its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.base import DataFlow, ProxyDataFlow
from dfserve.dataflow.dataset.ilsvrc import ILSVRC12
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.mapping import MapData
from dfserve.errors import ConfigError
from dfserve.producer.send import host_name

SUFFIXES = {".jpg", ".jpeg", ".png"}  # compared in lower case
SIZE = 224  # pixels: the edge of what ImageNet models take
SMALLEST = 0.6  # edge of a random crop, as a share of the photograph's shorter edge


class Photos(ILSVRC12):
    """All photographs at any depth below a folder of any shape, as [image, label]: each subfolder is a class."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the folder.

        Raises:
            ConfigError: there is no such folder, or no photograph in it.
        """
        root = Path(folder)
        if not root.is_dir():
            raise ConfigError(f"there is no folder {root}")
        files = sorted(
            path.relative_to(root)
            for path in root.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not files:
            raise ConfigError(f"no photographs below {root} (looked for {', '.join(sorted(SUFFIXES))}, any case)")
        labels = {parent: label for label, parent in enumerate(sorted({file.parent for file in files}))}
        Indexed.__init__(self, shuffle=True)
        self.name, self.full_dir = "train", str(root)
        self.imglist = [(str(file), labels[file.parent]) for file in files]


def open_photos(folder: str | os.PathLike[str]) -> ILSVRC12:
    """List a folder: ImageNet-shaped (``train/<synset>/*.JPEG``), or any with photographs somewhere in it.

    Raises:
        ConfigError: there is no photograph.
    """
    train = Path(folder) / "train"
    if train.is_dir() and any(entry.is_dir() for entry in train.iterdir()):
        return ILSVRC12(folder, "train")
    return Photos(folder)


def class_names(photos: ILSVRC12) -> dict[int, str]:
    """Return the name of each label: the folder of its photographs."""
    return {label: Path(file).parent.name or Path(photos.full_dir).name for file, label in photos.imglist}


class Signed(ProxyDataFlow):
    """Datapoints with two components more: the producer's name and a running number, over all passes.

    It ends early when its time is up, so that a demo on a million photographs ends too.
    """

    def __init__(self, ds: Any, seconds: float) -> None:
        """Wrap ``ds``; ``seconds`` count from the first datapoint of the first pass."""
        super().__init__(ds)
        self._seconds = seconds
        self._until: float | None = None
        self._number = 0

    def __iter__(self) -> Iterator[list[Any]]:
        for datapoint in self.ds:
            self._until = self._until or time.monotonic() + self._seconds
            if time.monotonic() >= self._until:
                return
            yield [*datapoint, host_name(), self._number]
            self._number += 1


def augment(datapoint: list[Any]) -> list[Any]:
    """Cut a random square out of [image, label], resize it to 224 x 224, and flip every second one."""
    image, label = datapoint
    height, width = image.shape[:2]
    edge = max(1, round(min(height, width) * np.random.uniform(SMALLEST, 1)))
    top, left = np.random.randint(height - edge + 1), np.random.randint(width - edge + 1)
    square = cv2.resize(image[top : top + edge, left : left + edge], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return [cv2.flip(square, 1) if np.random.random() < 0.5 else square, label]


def make(folder: str, seconds: float = float("inf")) -> DataFlow:
    """Return a pipeline of ``[image, label, producer, number]``: uint8 (224, 224, 3) BGR, int, str, int.

    Args:
        folder: ImageNet-shaped, or any with photographs in it.
        seconds: after which the pass ends wherever it is.
    """
    return Signed(MapData(open_photos(folder), augment), seconds)
