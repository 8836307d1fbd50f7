"""Owns an example of a pipeline for epochs: scikit-learn's handwritten digits, moved and turned at random.

::

    pip install scikit-learn
    cd examples
    dfserve produce digits_pipeline:make --to tcp://127.0.0.1:8877 --workers 2
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from dfserve.dataflow import AugmentImageComponent, DataFlow, DataFromList, imgaug

BRIGHTEST = 16  # a pixel's value in the data set is from 0 to this
DEGREES = 15.0  # to either side: a 6 stays a 6


def make() -> DataFlow:
    """Return a pipeline of ``[image, label]``: float32 of shape (8, 8), from 0 to 1, and int.

    Every item has random numbers of its own in every epoch: whichever worker makes it, and however often, the image is
    the same. There is no shuffling here, for the trainer's plan orders the items, and no batching, for it batches too.
    """
    digits = load_digits()
    images = (digits.images / BRIGHTEST).astype(np.float32)
    items = [[image, int(label)] for image, label in zip(images, digits.target, strict=True)]
    move = [imgaug.Shift(0.15, 0.15), imgaug.Rotation(DEGREES, center_range=(0.5, 0.5))]
    return AugmentImageComponent(DataFromList(items, shuffle=False), move)
