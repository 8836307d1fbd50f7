"""Owns what is known about ILSVRC12 beside its images: names of classes, lists of labels, the mean image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfserve.dataflow.dataset.caffe import caffe_file
from dfserve.dataflow.dataset.folders import dataset_folder
from dfserve.dataflow.dataset.listing import guess_structure, read_labels, read_synsets
from dfserve.dataflow.dataset.splits import check_split
from dfserve.dataflow.decoding import import_cv2
from dfserve.errors import StoreError

_MEAN_SHAPE = (3, 256, 256)  # planes (blue, green, red), rows, columns
_DATA_FIELD = 5  # of Caffe's message BlobProto: "repeated float data = 5 [packed = true]"
_LONGEST_MEAN = 1 << 20  # bytes; the published file has 786,446


class ILSVRCMeta:
    """The label files that the authors of Caffe published, which most code means by the labels of ILSVRC12."""

    def __init__(self, dir: str | os.PathLike[str] | None = None) -> None:
        """Use the files in ``dir``; they are downloaded to it if ``synsets.txt`` is not there.

        Args:
            dir: default: ``ilsvrc_metadata`` in the folder that the variable DFSERVE_DATASET or TENSORPACK_DATASET
                names, else in the user's cache folder.

        Raises:
            DownloadError: they are missing and could not be downloaded.
        """
        self.dir = str(dataset_folder("ilsvrc_metadata", dir))
        caffe_file("synsets.txt", self.dir)

    def get_synset_words_1000(self) -> dict[int, str]:
        """Return for each label its synset and what people call it, as in "n01440764 tench, Tinca tinca"."""
        lines = caffe_file("synset_words.txt", self.dir).read_text().splitlines()
        return {label: line.strip() for label, line in enumerate(lines)}

    def get_synset_1000(self) -> dict[int, str]:
        """Return for each label its synset, as in "n01440764"."""
        return dict(enumerate(read_synsets(caffe_file("synsets.txt", self.dir))))

    def get_image_list(self, name: str, dir_structure: str = "original") -> list[tuple[str, int]]:
        """Return (file name, label) of each image of a split.

        Args:
            name: "train", "val" or "test".
            dir_structure: "train" for file names with the folder of their synset, "original" for those without;
                "train" images always lie in folders.

        Raises:
            ConfigError: another ``name`` or ``dir_structure``, or a malformed label file.
        """
        check_split("name", name, ("train", "val", "test"))
        check_split("dir_structure", dir_structure, ("original", "train"))
        sorted_apart = name != "train" and dir_structure == "train"
        prefixes = read_synsets(caffe_file("synsets.txt", self.dir)) if sorted_apart else None
        return list(read_labels(caffe_file(f"{name}.txt", self.dir), prefixes))

    def get_per_pixel_mean(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """Return the mean training image: float32, BGR, from 0 to 255.

        Args:
            size: (height, width) to which it is resized, which needs OpenCV; default: (256, 256), as it is stored.

        Raises:
            StoreError: the file is damaged.
        """
        path = caffe_file("imagenet_mean.binaryproto", self.dir)
        with path.open("rb") as file:
            floats = np.frombuffer(_packed_data(file.read(_LONGEST_MEAN + 1), path), "<f4")
        if floats.size != np.prod(_MEAN_SHAPE):
            raise StoreError(f"{path} has {floats.size:,} values, not those of a mean image of shape {_MEAN_SHAPE}")
        mean = np.ascontiguousarray(floats.reshape(_MEAN_SHAPE).transpose(1, 2, 0), np.float32)
        if size is None:
            return mean
        return np.asarray(import_cv2().resize(mean, size[::-1]), np.float32)

    @staticmethod
    def guess_dir_structure(dir: str | os.PathLike[str]) -> str:
        """Return how ``dir``, a folder like ``val``, is laid out: "train" (a folder for each synset) or "original"."""
        return guess_structure(Path(dir).expanduser())


def _packed_data(message: bytes, path: Path) -> bytes:
    """Return the bytes of the floats of a BlobProto. Format: https://protobuf.dev/programming-guides/encoding/."""
    position = 0
    try:
        while position < len(message):
            key, position = _varint(message, position)
            number, position = _varint(message, position)  # the value, or the length of what follows
            if key & 7 == 0:
                continue
            if key & 7 != 2 or position + number > len(message):
                break
            if key >> 3 == _DATA_FIELD and number % 4 == 0:
                return message[position : position + number]
            position += number
    except IndexError:  # it ends within a number
        pass
    raise StoreError(f"{path} is damaged: it has no list of floats as Caffe stores them; remove it to get it anew")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the number at ``position``, in groups of 7 bits, and where it ends."""
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
