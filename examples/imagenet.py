"""Owns an example of a pipeline: ImageNet as ResNets are trained on it, from the folder of its JPEG files.

::

    cd examples
    dfserve produce imagenet:make --to tcp://trainer:8877 --workers auto --arg folder=/data/ILSVRC12
    python imagenet.py /data/ILSVRC12

The second command says how fast this machine makes batches when nobody else needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow import (
    AugmentImageComponent,
    BatchData,
    DataFlow,
    MultiProcessMapData,
    MultiProcessRunnerZMQ,
    TestDataSpeed,
    dataset,
    imgaug,
)

EDGE = 224  # pixels of the square that ImageNet models take
SHORTEST = 256  # pixels of a validation image's shorter edge before the square is cut from its middle
BATCH = 64  # datapoints in a batch
# Principal components of the colours of ImageNet's pixels (Krizhevsky et al., 2012), with the numbers of
# fb.resnet.torch; in BGR, as cv2 reads images.
EIGENVALUES = np.array([0.0045, 0.0188, 0.2175]) * 255
EIGENVECTORS = np.array([[0.4203, -0.6948, -0.5836], [-0.8140, -0.0045, -0.5808], [0.4009, 0.7192, -0.5675]])


def augmentors(name: str) -> list[imgaug.ImageAugmentor]:
    """Return what is done to an image: at random for "train", the same every time for anything else."""
    if name != "train":
        return [imgaug.ResizeShortestEdge(SHORTEST), imgaug.CenterCrop((EDGE, EDGE))]
    colours = [
        imgaug.BrightnessScale((0.6, 1.4)),
        imgaug.Contrast((0.6, 1.4), rgb=False),
        imgaug.Saturation(0.4, rgb=False),
        imgaug.Lighting(0.1, EIGENVALUES, EIGENVECTORS),
    ]
    return [
        imgaug.GoogleNetRandomCropAndResize(target_shape=EDGE),
        imgaug.RandomOrderAug(colours),
        imgaug.Flip(horiz=True),
    ]


def make(folder: str, name: str = "train") -> DataFlow:
    """Return a pipeline of ``[image, label]``: uint8 of shape (EDGE, EDGE, 3), BGR, and int.

    Args:
        folder: holds ``train`` and ``val``, each with a folder of images for each class.
        name: "train", in a new order every pass, or "val", always in the same.
    """
    return AugmentImageComponent(dataset.ILSVRC12(folder, name), augmentors(name))


def read(augmentor: imgaug.AugmentorList, datapoint: list[Any]) -> list[Any]:
    """Make [image, label] of [file name, label]."""
    path, label = datapoint
    return [augmentor.augment(cv2.imread(path, cv2.IMREAD_COLOR)), label]


def batches(folder: str, name: str = "train", size: int = BATCH, processes: int = 2) -> DataFlow:
    """Return a pipeline of batches of what ``make`` yields, made by several processes of this machine.

    Training takes whatever comes first. Validation has every image once, in order, so that its score is exact.
    """
    if name == "train":
        return BatchData(MultiProcessRunnerZMQ(make(folder, name), processes), size)
    files = dataset.ILSVRC12Files(folder, name)
    prepare = partial(read, imgaug.AugmentorList(augmentors(name)))
    return BatchData(MultiProcessMapData(files, processes, prepare, ordered=True), size, remainder=True)


def main(argv: Sequence[str]) -> None:
    """Measure with the data set's folder as the first argument, and "train" or "val" as the second."""
    if len(argv) not in (1, 2):
        sys.exit("usage: imagenet.py FOLDER [train|val]")
    TestDataSpeed(batches(*argv, processes=os.cpu_count() or 2), size=100).start()


if __name__ == "__main__":
    main(sys.argv[1:])
