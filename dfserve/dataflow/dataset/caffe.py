"""Owns the files about ILSVRC12 that the authors of Caffe published: labels, names of classes, the mean image."""

from __future__ import annotations

import os
from pathlib import Path

from dfserve.dataflow.dataset.archives import take_files
from dfserve.dataflow.dataset.download import fetch
from dfserve.dataflow.dataset.folders import dataset_folder
from dfserve.dataflow.dataset.published import CAFFE_ILSVRC12

_FILES = ("synsets.txt", "synset_words.txt", "train.txt", "val.txt", "test.txt", "imagenet_mean.binaryproto")


def caffe_file(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of one of Caffe's files about ILSVRC12, downloaded and unpacked if it is missing.

    Args:
        name: of the file.
        folder: where it lies. Default: ``ilsvrc_metadata`` in the folder that the variable DFSERVE_DATASET or
            TENSORPACK_DATASET names, else in the user's cache folder.

    Raises:
        DownloadError: it is missing and could not be downloaded.
    """
    root = dataset_folder("ilsvrc_metadata", folder)
    if not (root / name).is_file():
        # What is there already may be somebody's own.
        take_files(fetch(CAFFE_ILSVRC12, root), [file for file in _FILES if not (root / file).exists()], root)
    return root / name
