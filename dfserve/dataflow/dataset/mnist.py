"""Owns MNIST and Fashion-MNIST: small grey images of digits and of clothes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dfserve.dataflow.dataset.download import fetch
from dfserve.dataflow.dataset.folders import dataset_folder
from dfserve.dataflow.dataset.idx import read_idx
from dfserve.dataflow.dataset.published import FASHION_MNIST, MNIST, Published
from dfserve.dataflow.dataset.splits import check_split
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.indexing import place_of
from dfserve.errors import StoreError

_SIDE = 28  # pixels
_WHITE = np.float32(255)
_Bytes = npt.NDArray[np.uint8]


class Mnist(Indexed):
    """Handwritten digits as datapoints [image, label].

    An image is float32 of shape (28, 28), from 0 to 1. A label is a ``numpy.uint8`` from 0 to 9. There are 60,000 for
    training and 10,000 for testing. http://yann.lecun.com/exdb/mnist/
    """

    _FOLDER = "mnist_data"
    _FILES = MNIST

    def __init__(self, train_or_test: str, shuffle: bool = True, dir: str | os.PathLike[str] | None = None) -> None:
        """Read the published idx files, gzipped or not, into memory: a byte per pixel, 47 MB for training.

        Forked processes share that memory. A copy that was pickled reads the files again, when it is first used.

        Args:
            train_or_test: "train" or "test".
            shuffle: a new order for every pass.
            dir: the folder of the files; those that are missing are downloaded to it. Default: ``mnist_data``
                (``fashion_mnist_data``) in the folder that the variable DFSERVE_DATASET or TENSORPACK_DATASET names,
                else in the user's cache folder.

        Raises:
            ConfigError: another ``train_or_test``.
            StoreError: a file is damaged, or no idx file of 28 x 28 images or of labels.
            DownloadError: a file is missing and could not be downloaded.
        """
        check_split("train_or_test", train_or_test, ("train", "test"))
        super().__init__(shuffle)
        self.train_or_test = train_or_test
        self.dir = str(dataset_folder(self._FOLDER, dir))
        self._data: tuple[_Bytes, _Bytes] | None = None
        self._size = len(self._read()[0])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the files; the image is the caller's own to change."""
        images, labels = self._read()
        place = place_of(index, len(self))
        return [images[place].astype(np.float32) / _WHITE, labels[place]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    def _read(self) -> tuple[_Bytes, _Bytes]:
        if self._data is None:
            image_file, label_file = (self._find(file) for file in self._FILES[self.train_or_test])
            images, labels = read_idx(image_file, (_SIDE, _SIDE)), read_idx(label_file, ())
            if len(images) != len(labels):
                raise StoreError(
                    f"{image_file} has {len(images):,} images, but {label_file} has {len(labels):,} labels: they do not"
                    " belong together"
                )
            self._data = images, labels
        return self._data

    def _find(self, file: Published) -> Path:
        zipped = Path(self.dir, file.name)
        found = (path for path in (zipped, zipped.with_suffix("")) if path.is_file())
        return next(found, None) or fetch(file, zipped.parent)


class FashionMnist(Mnist):
    """Photographs of clothes as datapoints [image, label], of the same shapes, types and numbers as ``Mnist``.

    https://github.com/zalandoresearch/fashion-mnist
    """

    _FOLDER = "fashion_mnist_data"
    _FILES = FASHION_MNIST

    def get_label_names(self) -> list[str]:
        """Return the name of each label."""
        return [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ]
