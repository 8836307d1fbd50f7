"""Owns CIFAR-10 and CIFAR-100: small colour photographs of things, in the published binary version.

The python version is a pickle, which can run any code when it is loaded, so it is never read.
Format: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dfserve.dataflow.dataset.archives import take_files
from dfserve.dataflow.dataset.download import fetch
from dfserve.dataflow.dataset.folders import dataset_folder
from dfserve.dataflow.dataset.published import CIFAR10, CIFAR100, Published
from dfserve.dataflow.dataset.splits import check_split
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.indexing import place_of
from dfserve.errors import ConfigError, DownloadError, StoreError

_SHAPE = (3, 32, 32)  # planes (red, green, blue), rows, columns: how an image is stored
_PIXELS = 3 * 32 * 32  # bytes
_LONGEST_NAMES = 1 << 16  # bytes of a file of label names; the published ones have less than 2 KB


@dataclass(frozen=True)
class _Version:
    """How one of the two data sets is stored.

    Attributes:
        archive: what is downloaded.
        folder: the folder in the archive, where the files are looked for.
        pickles: the folder of the python version.
        files: for each split, its files.
        records: for each split, the images in each file.
        label_bytes: bytes before the pixels; the last one is the label.
        names: the file with the names of the labels.
    """

    archive: Published
    folder: str
    pickles: str
    files: dict[str, tuple[str, ...]]
    records: dict[str, int]
    label_bytes: int
    names: str

    @property
    def all_files(self) -> tuple[str, ...]:
        return (*self.files["train"], *self.files["test"], self.names)


_VERSIONS = {
    10: _Version(
        archive=CIFAR10,
        folder="cifar-10-batches-bin",
        pickles="cifar-10-batches-py",
        files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        records={"train": 10_000, "test": 10_000},
        label_bytes=1,
        names="batches.meta.txt",
    ),
    100: _Version(
        archive=CIFAR100,
        folder="cifar-100-binary",
        pickles="cifar-100-python",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        records={"train": 50_000, "test": 10_000},
        label_bytes=2,  # of one of 20 kinds, and of the class
        names="fine_label_names.txt",
    ),
}


class CifarBase(Indexed):
    """Photographs as datapoints [image, label].

    An image is uint8 of shape (32, 32, 3), RGB (unlike those of most data sets here). A label is an int. There are
    50,000 for training and 10,000 for testing.
    """

    def __init__(
        self,
        train_or_test: str,
        shuffle: bool | None = None,
        dir: str | os.PathLike[str] | None = None,
        cifar_classnum: int = 10,
    ) -> None:
        """Map the published binary files into memory: processes share it, forked or not.

        Args:
            train_or_test: "train" or "test".
            shuffle: a new order for every pass; default: for "train" only.
            dir: the folder that holds ``cifar-10-batches-bin`` or ``cifar-100-binary``, or the files themselves. If
                they are not there, the archive is downloaded to it and unpacked. Default: ``cifar10_data`` or
                ``cifar100_data`` in the folder that the variable DFSERVE_DATASET or TENSORPACK_DATASET names, else in
                the user's cache folder.
            cifar_classnum: 10 or 100.

        Raises:
            ConfigError: another ``train_or_test`` or ``cifar_classnum``.
            StoreError: a file has not the published size.
            DownloadError: files are missing and could not be downloaded.
        """
        check_split("train_or_test", train_or_test, ("train", "test"))
        if cifar_classnum not in _VERSIONS:
            raise ConfigError(f"cifar_classnum is {cifar_classnum!r}; it is 10 or 100")
        super().__init__(train_or_test == "train" if shuffle is None else shuffle)
        self.train_or_test = train_or_test
        self.cifar_classnum = cifar_classnum
        self.dir = str(dataset_folder(f"cifar{cifar_classnum}_data", dir))
        self._version = _VERSIONS[cifar_classnum]
        self._mapped: dict[str, list[npt.NDArray[np.uint8]]] = {}
        self._map(train_or_test)

    def __len__(self) -> int:
        return len(self._version.files[self.train_or_test]) * self._version.records[self.train_or_test]

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the files; the image is the caller's own to change.

        Raises:
            StoreError: the label is none of the data set: the file is damaged.
        """
        number, row = divmod(place_of(index, len(self)), self._version.records[self.train_or_test])
        record = self._map(self.train_or_test)[number][row]
        label = int(record[self._version.label_bytes - 1])
        if label >= self.cifar_classnum:
            raise StoreError(
                f"{self._version.files[self.train_or_test][number]} in {self.dir} is damaged: the label of record {row}"
                f" is {label}, of {self.cifar_classnum} classes"
            )
        image = record[self._version.label_bytes :].reshape(_SHAPE).transpose(1, 2, 0)
        return [np.ascontiguousarray(image), label]

    def get_per_pixel_mean(self, names: Sequence[str] = ("train", "test")) -> npt.NDArray[np.float32]:
        """Return the mean of all images of the splits ``names``: float32 of shape (32, 32, 3), RGB, from 0 to 255."""
        if isinstance(names, str) or not names:
            raise ConfigError(f"names is {names!r}; it is a tuple of 'train', 'test' or both")
        total, count = np.zeros(_PIXELS, np.uint64), 0
        for name in names:
            check_split("a name", name, ("train", "test"))
            for records in self._map(name):
                total += records[:, self._version.label_bytes :].sum(axis=0, dtype=np.uint64)
                count += len(records)
        return np.ascontiguousarray((total / count).astype(np.float32).reshape(_SHAPE).transpose(1, 2, 0))

    def get_per_channel_mean(self, names: Sequence[str] = ("train", "test")) -> npt.NDArray[np.float32]:
        """Return the mean of red, green and blue in the splits ``names``: float32 of shape (3,), from 0 to 255."""
        mean: npt.NDArray[np.float32] = self.get_per_pixel_mean(names).mean(axis=(0, 1))
        return mean

    def get_label_names(self) -> list[str]:
        """Return the name of each label.

        Raises:
            StoreError: the file of the names has another number of them.
            DownloadError: it is missing and could not be downloaded.
        """
        (path,) = self._find((self._version.names,))
        with path.open("rb") as file:
            names = file.read(_LONGEST_NAMES).decode(errors="replace").split()
        if len(names) != self.cifar_classnum:
            raise StoreError(
                f"{path} has {len(names)} names for {self.cifar_classnum} labels; remove it to get it anew"
            )
        return names

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}}

    def _map(self, split: str) -> list[npt.NDArray[np.uint8]]:
        """Return an array for each file of a split, of shape (records, bytes of a record); mapped at first."""
        if split not in self._mapped:
            shape = (self._version.records[split], self._version.label_bytes + _PIXELS)
            self._mapped[split] = [_map_file(path, shape) for path in self._find(self._version.files[split])]
        return self._mapped[split]

    def _find(self, names: tuple[str, ...]) -> list[Path]:
        """Return the path of each file, unpacked or downloaded if it is missing."""
        root = Path(self.dir)
        for folder in (root / self._version.folder, root):
            if all((folder / name).is_file() for name in names):
                return [folder / name for name in names]
        take_files(self._fetch(root), self._version.all_files, root / self._version.folder)
        return [root / self._version.folder / name for name in names]

    def _fetch(self, root: Path) -> Path:
        try:
            return fetch(self._version.archive, root)
        except DownloadError as error:
            if not (root / self._version.pickles).is_dir():
                raise
            raise DownloadError(
                f"{root} has the python version only ({self._version.pickles}), which is not read: it is a pickle, and"
                f" a pickle can run any code. The binary version is read instead, but {error}"
            ) from error


def _map_file(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    size = path.stat().st_size
    if size != shape[0] * shape[1]:
        raise StoreError(
            f"{path} has {size:,} bytes; the published file has {shape[0]:,} records of {shape[1]:,}, so"
            f" {shape[0] * shape[1]:,}. Remove it to get it anew"
        )
    return np.asarray(np.memmap(path, np.uint8, "r", shape=shape))


class Cifar10(CifarBase):
    """Photographs of 10 classes, as ``CifarBase`` describes them."""

    def __init__(
        self, train_or_test: str, shuffle: bool | None = None, dir: str | os.PathLike[str] | None = None
    ) -> None:
        """Do what ``CifarBase`` does, with 10 classes."""
        super().__init__(train_or_test, shuffle, dir, 10)


class Cifar100(CifarBase):
    """Photographs of 100 classes, as ``CifarBase`` describes them."""

    def __init__(
        self, train_or_test: str, shuffle: bool | None = None, dir: str | os.PathLike[str] | None = None
    ) -> None:
        """Do what ``CifarBase`` does, with 100 classes."""
        super().__init__(train_or_test, shuffle, dir, 100)
