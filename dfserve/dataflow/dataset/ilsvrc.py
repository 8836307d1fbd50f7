"""Owns the ImageNet classification data set (ILSVRC12) as DataFlows: of file names, and of decoded images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfserve.dataflow.base import RNGDataFlow
from dfserve.dataflow.dataset.listing import list_images
from dfserve.dataflow.failures import DatapointError, attach_key
from dfserve.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

_NAMES = ("train", "val", "test")
_STRUCTURES = ("original", "train")


class ILSVRC12Files(RNGDataFlow):
    """The images of an ImageNet-shaped folder as datapoints [file name, label]: full path (str), label (int).

    Any folder of that shape will do: ``dir/train/<synset>/*.JPEG``. It is listed once, here, and ``ds[i]`` is item *i*
    of that sorted list, whatever the order of the passes.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str],
        name: str,
        meta_dir: str | os.PathLike[str] | None = None,
        shuffle: bool | None = None,
        dir_structure: str | None = None,
    ) -> None:
        """List the images of ``dir/name``.

        Args:
            dir: the folder that holds ``train``, ``val`` and ``test``.
            name: which of them.
            meta_dir: a folder with caffe_ilsvrc12's label files (``train.txt``, ``val.txt``, ``synsets.txt``); they
                may also lie in ``dir``. Without them a label is the place of its folder among the sorted folders of
                ``dir/train``. (Unlike tensorpack, nothing is downloaded.)
            shuffle: a new order for every pass; default: for "train" only.
            dir_structure: how ``dir/val`` or ``dir/test`` is laid out: "train" (a folder for each synset) or "original"
                (all images in one folder, which needs ``val.txt``); default: look. ``dir/train`` is always "train".

        Raises:
            ConfigError: another ``name`` or ``dir_structure``, a folder or label file that is missing or wrong, or no
                images at all.
        """
        if name not in _NAMES or dir_structure not in (None, *_STRUCTURES):
            raise ConfigError(
                f"name is {name!r}, of {', '.join(_NAMES)}; dir_structure is {dir_structure!r}, of None,"
                f" {', '.join(_STRUCTURES)}"
            )
        root = Path(dir).expanduser()
        meta = None if meta_dir is None else Path(meta_dir).expanduser()
        for folder in (root / name, meta or root):
            if not folder.is_dir():
                raise ConfigError(f"there is no folder {folder} (dir={os.fspath(dir)!r}, name={name!r})")
        self.name = name
        self.full_dir = str(root / name)
        self.shuffle = name == "train" if shuffle is None else shuffle
        self.imglist = list_images(root, name, meta, "train" if name == "train" else dir_structure)

    def __len__(self) -> int:
        return len(self.imglist)

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the sorted list."""
        name, label = self.imglist[index]
        return [os.path.join(self.full_dir, name), label]  # noqa: PTH118 (10 times faster than pathlib, per datapoint)

    def __iter__(self) -> Iterator[list[Any]]:
        order = np.arange(len(self))
        if self.shuffle:
            self.rng.shuffle(order)
        for index in order.tolist():
            yield self[index]


class ILSVRC12(ILSVRC12Files):
    """The images of an ImageNet-shaped folder as datapoints [image, label].

    An image is uint8 of shape (height, width, 3), BGR; grey, CMYK and transparent ones are converted to that. A label
    is an int. Needs OpenCV: ``pip install 'dfserve[producer]'``.
    """

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the sorted list.

        Raises:
            DatapointError: the file is missing or no image; it names the file, which is also the error's key.
        """
        path, label = super().__getitem__(index)
        try:
            return [_read_image(path), label]
        except Exception as error:
            attach_key(error, path, index)
            raise


def _read_image(path: str) -> npt.NDArray[np.uint8]:
    cv2 = _import_cv2()
    try:
        image: npt.NDArray[np.uint8] | None = cv2.imread(path, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DatapointError(f"cv2 cannot read the image {path}: {error}") from error
    if image is None:
        raise DatapointError(f"cv2 cannot read the image {path} ({_why_unreadable(path)})")
    return image


def _why_unreadable(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return "its format is unknown or damaged" if file.read(1) else "the file is empty"
    except OSError as error:
        return str(error.strerror)


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("decoding images needs OpenCV: pip install 'dfserve[producer]'") from error
    return cv2
