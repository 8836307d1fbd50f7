"""Owns TinyImageNet: 200 classes of ImageNet in images of 64 x 64 pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from dfserve.dataflow.dataset.archives import unpack_folder
from dfserve.dataflow.dataset.download import fetch
from dfserve.dataflow.dataset.listing import CHECKED_FILES, is_image
from dfserve.dataflow.dataset.published import TINY_IMAGENET
from dfserve.dataflow.dataset.splits import check_split
from dfserve.dataflow.decoding import read_image
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, DatapointError

_FOLDER = "tiny-imagenet-200"  # in the archive
_CLASSES = "wnids.txt"
_REMEDY = "the folder is incomplete: unpack the archive again"


class TinyImageNet(Indexed):
    """The images of TinyImageNet as datapoints [image, label].

    An image is uint8 of shape (64, 64, 3), BGR; the few grey ones are converted to that. A label is an int, the
    place of its class in ``wnids.txt``, from 0. There are 100,000 for training and 10,000 for validation. Needs
    OpenCV: ``pip install 'dfserve[producer]'``. http://cs231n.stanford.edu/tiny-imagenet-200.zip
    """

    def __init__(
        self,
        dir: str | os.PathLike[str],
        name: str,
        shuffle: bool | None = None,
        *,
        on_error: OnError = "raise",
    ) -> None:
        """List the images.

        Args:
            dir: the published folder (with ``wnids.txt``), or the one that holds it as ``tiny-imagenet-200``. The
                archive is downloaded to it, and unpacked, if it is empty.
            name: "train" or "val".
            shuffle: a new order for every pass; default: for "train" only.
            on_error: what a pass does with an image that cannot be read: ``"raise"``, ``"skip"``, or a ``SkipErrors``
                with limits and a quarantine file.

        Raises:
            ConfigError: another ``name``, a folder that does not exist, is not TinyImageNet or is incomplete.
            DownloadError: the archive could not be downloaded.
        """
        check_split("name", name, ("train", "val"))
        super().__init__(name == "train" if shuffle is None else shuffle, on_error)
        root = _find(Path(dir).expanduser())
        self.name = name
        self.full_dir = root / name
        labels = _read_classes(root / _CLASSES)
        images = _list_train(self.full_dir, labels) if name == "train" else _list_val(self.full_dir, labels)
        self.imglist = list(images)
        if not self.imglist:
            raise ConfigError(f"no images in {self.full_dir}; {_REMEDY}")
        for path, _ in islice(self.imglist, CHECKED_FILES):
            if not Path(path).is_file():
                raise ConfigError(f"there is no {path}; {_REMEDY}")

    def __len__(self) -> int:
        return len(self.imglist)

    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index``: by class and name of the file for "train", as in its list for "val".

        Raises:
            DatapointError: the file is missing, no image, or cut short; it names the file, also in the error's key.
        """
        path, label = self.imglist[place_of(index, len(self))]
        try:
            return [read_image(path), label]
        except DatapointError as error:
            attach_key(error, path, index)
            raise


def _find(root: Path) -> Path:
    for folder in (root, root / _FOLDER):
        if (folder / _CLASSES).is_file():
            return folder
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; to have TinyImageNet downloaded to it, make it")
    # A folder with other things in it is more likely a mistake than a place for 120,000 files.
    ours = (TINY_IMAGENET.name, f"{TINY_IMAGENET.name}.part", f".{_FOLDER}.")
    strangers = [path.name for path in root.iterdir() if not path.name.startswith(ours)]
    if strangers:
        raise ConfigError(
            f"{root} is not TinyImageNet: there is no {_CLASSES}, nor {_FOLDER}/{_CLASSES}, but"
            f" {', '.join(sorted(strangers)[:3])}; name its folder, or an empty one to have it downloaded there"
        )
    unpack_folder(fetch(TINY_IMAGENET, root), _FOLDER)
    return root / _FOLDER


def _read_classes(path: Path) -> dict[str, int]:
    """Return the label of each class."""
    classes = path.read_text(encoding="utf-8", errors="surrogateescape").split()
    if not classes or len(set(classes)) != len(classes):
        raise ConfigError(f"{path} names {len(classes)} classes, {len(set(classes))} different ones: it is damaged")
    return {name: label for label, name in enumerate(classes)}


def _list_train(folder: Path, labels: dict[str, int]) -> Iterator[tuple[str, int]]:
    present = {path.parent.name for path in folder.glob("*/images")}
    if different := present.symmetric_difference(labels):
        raise ConfigError(
            f"{folder} has images of {len(present)} classes, but {_CLASSES} names {len(labels)}; in one only:"
            f" {', '.join(sorted(different)[:3])}; {_REMEDY}"
        )
    for name, label in labels.items():
        images = folder / name / "images"
        with os.scandir(images) as entries:
            files = sorted(entry.name for entry in entries if is_image(entry.name))
        for file in files:
            yield f"{images}/{file}", label


def _list_val(folder: Path, labels: dict[str, int]) -> Iterator[tuple[str, int]]:
    path = folder / "val_annotations.txt"  # lines of: file, class, and the corners of a box
    if not path.is_file():
        raise ConfigError(f"there is no {path}; {_REMEDY}")
    # As Python reads file names: bytes that are not UTF-8 come back unchanged when the file is opened.
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            file, name = [*line.split(), "", ""][:2]
            if name not in labels:
                raise ConfigError(f"{path}, line {number}: {line.strip()!r} does not begin with a file and a class")
            yield f"{folder}/images/{file}", labels[name]
