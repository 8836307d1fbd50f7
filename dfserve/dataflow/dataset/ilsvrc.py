"""Owns the ImageNet classification data set (ILSVRC12) as DataFlows: of file names, and of decoded images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dfserve.dataflow.dataset.listing import list_images
from dfserve.dataflow.decoding import read_image
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, DatapointError

_NAMES = ("train", "val", "test")
_STRUCTURES = ("original", "train")


class ILSVRC12Files(Indexed):
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
        *,
        on_error: OnError = "raise",
    ) -> None:
        """List the images of ``dir/name``.

        Args:
            dir: the folder that holds ``train``, ``val`` and ``test``.
            name: which of them.
            meta_dir: a folder with caffe_ilsvrc12's label files (``train.txt``, ``val.txt``, ``synsets.txt``); they
                may also lie in ``dir``. Without them a label is the place of its folder among the sorted folders of
                ``dir/train``; for the whole ImageNet that gives the same labels.
            shuffle: a new order for every pass; default: for "train" only.
            dir_structure: how ``dir/val`` or ``dir/test`` is laid out: "train" (a folder for each synset) or "original"
                (all images in one folder); default: look. ``dir/train`` is always "train". The "original" structure
                needs ``val.txt`` or ``test.txt``: without ``meta_dir`` it is downloaded if it is nowhere.
            on_error: what a pass does with an image that cannot be read (ILSVRC12 reads them, and so may a subclass, in
                ``__getitem__``): ``"raise"``, ``"skip"``, or a ``SkipErrors`` with limits and a quarantine file.

        Raises:
            ConfigError: another ``name`` or ``dir_structure``, a folder or label file that is missing or wrong, or no
                images at all.
            DownloadError: a label file is needed and could not be downloaded.
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
        super().__init__(name == "train" if shuffle is None else shuffle, on_error)
        self.name = name
        self.full_dir = str(root / name)
        self.imglist = list_images(root, name, meta, "train" if name == "train" else dir_structure)

    def __len__(self) -> int:
        return len(self.imglist)

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the sorted list."""
        name, label = self.imglist[place_of(index, len(self))]
        return [os.path.join(self.full_dir, name), label]  # noqa: PTH118 (10 times faster than pathlib, per datapoint)


class ILSVRC12(ILSVRC12Files):
    """The images of an ImageNet-shaped folder as datapoints [image, label].

    An image is uint8 of shape (height, width, 3), BGR; grey, CMYK and transparent ones are converted to that. A label
    is an int. Needs OpenCV: ``pip install 'dfserve[producer]'``.
    """

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index`` of the sorted list.

        Raises:
            DatapointError: the file is missing, no image, or cut short; it names the file, also in the error's key.
        """
        path, label = super().__getitem__(index)
        try:
            return [read_image(path), label]
        except DatapointError as error:
            attach_key(error, path, index)
            raise
