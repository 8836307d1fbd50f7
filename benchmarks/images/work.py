"""Owns the work on one image, which is the same for all sides: read the file, crop, resize to 224 x 224, maybe flip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2

cv2.setNumThreads(0)  # in every process that imports this: two processes are two threads, whatever cv2 would start


def augmentors(imgaug: Any) -> list[Any]:
    """Return the two augmentors of dfserve's or tensorpack's ``imgaug``; the first one crops and resizes."""
    return [imgaug.GoogleNetRandomCropAndResize(), imgaug.Flip(horiz=True)]


def pipeline(dataflow: Any, files: Sequence[str]) -> Any:
    """Return the tutorial's pipeline, of dfserve's or tensorpack's ``dataflow``."""
    ds = dataflow.DataFromList([[file, 7] for file in files], shuffle=True)
    ds = dataflow.MapDataComponent(ds, cv2.imread, 0)
    return dataflow.AugmentImageComponent(ds, augmentors(dataflow.imgaug), copy=False)


class Augment:
    """Reads a file and augments the image, as a function that can be pickled."""

    def __init__(self, imgaug: Any) -> None:
        self._augmentors = imgaug.AugmentorList(augmentors(imgaug))

    def reset_state(self) -> None:
        """Begin a stream of random numbers of this process's own."""
        self._augmentors.reset_state()

    def __call__(self, datapoint: Sequence[Any]) -> list[Any]:
        file, label = datapoint
        return [self._augmentors.augment(cv2.imread(file)), label]
