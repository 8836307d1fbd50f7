"""Owns the pipelines of tensorpack's tutorials with the import changed, and a program that sends one.

::

    python tutorials.py PIPELINE FOLDER ADDRESS

Line by line as the tutorials have them, but for numbers, which are smaller here, and what is no Python there. FOLDER
holds an ImageNet-shaped data set and, for what reads LMDB, what ``save_jpegs`` has made of it.
"""
# ruff: noqa: F403, F405  # the tutorials import everything, so that is what is tested

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import dfserve.dataflow as df
from dfserve.dataflow import *
from dfserve.dataflow.dataset import NetworkImages

BATCH = 4  # datapoints
EDGE = 224  # pixels: of what the augmentors give
LMDB = "ILSVRC-train.lmdb"

# For images in BGR, with the constants of fb.resnet.torch.
lots_of_augmentors = [
    imgaug.GoogleNetRandomCropAndResize(interp=cv2.INTER_CUBIC),
    imgaug.RandomOrderAug(
        [
            imgaug.BrightnessScale((0.6, 1.4), clip=False),
            imgaug.Contrast((0.6, 1.4), rgb=False, clip=False),
            imgaug.Saturation(0.4, rgb=False),
            imgaug.Lighting(
                0.1,
                eigval=np.asarray([0.2175, 0.0188, 0.0045][::-1]) * 255.0,
                eigvec=np.array(
                    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
                    dtype="float32",
                )[::-1, ::-1],
            ),
        ]
    ),
    imgaug.Flip(horiz=True),
]


# Random read


def images(folder: Path) -> DataFlow:
    ds0 = dataset.ILSVRC12(folder, "train", shuffle=True)
    return BatchData(ds0, BATCH, use_list=True)


def resized(folder: Path) -> DataFlow:
    ds = dataset.ILSVRC12(folder, "train", shuffle=True)
    ds = AugmentImageComponent(ds, [imgaug.Resize(EDGE)])
    return BatchData(ds, BATCH)


def runner(folder: Path) -> DataFlow:
    ds0 = dataset.ILSVRC12(folder, "train", shuffle=True)
    ds1 = AugmentImageComponent(ds0, lots_of_augmentors)
    ds = MultiProcessRunnerZMQ(ds1, num_proc=2)
    return BatchData(ds, BATCH)


def threads_of_images(folder: Path) -> DataFlow:
    ds0 = dataset.ILSVRC12(folder, "train", shuffle=True)
    augmentor = imgaug.AugmentorList(lots_of_augmentors)
    ds1 = MultiThreadMapData(
        ds0, num_thread=25, map_func=lambda dp: [augmentor.augment(dp[0]), dp[1]], buffer_size=1000
    )
    return BatchData(ds1, BATCH)


def threads_of_files(folder: Path) -> DataFlow:
    ds0 = dataset.ILSVRC12Files(folder, "train", shuffle=True)
    augmentor = imgaug.AugmentorList(lots_of_augmentors)
    ds1 = MultiThreadMapData(
        ds0,
        num_thread=25,
        map_func=lambda dp: [augmentor.augment(cv2.imread(dp[0], cv2.IMREAD_COLOR)), dp[1]],
        buffer_size=1000,
    )
    ds1 = MultiProcessRunnerZMQ(ds1, num_proc=1)
    return BatchData(ds1, BATCH)


# Sequential read


class BinaryILSVRC12(dataset.ILSVRC12Files):
    def __iter__(self) -> Iterator[Any]:
        for fname, label in super(BinaryILSVRC12, self).__iter__():  # noqa: UP008  # as it is printed
            with open(fname, "rb") as f:  # noqa: PTH123  # likewise
                jpeg = f.read()
            jpeg = np.asarray(bytearray(jpeg), dtype="uint8")
            yield [jpeg, label]


def save_jpegs(folder: Path) -> None:
    ds0 = BinaryILSVRC12(folder, "train")
    ds1 = MultiProcessRunnerZMQ(ds0, num_proc=1)
    LMDBSerializer.save(ds1, str(folder / LMDB))


def jpegs(folder: Path) -> DataFlow:
    ds = LMDBSerializer.load(str(folder / LMDB), shuffle=False)
    return BatchData(ds, BATCH, use_list=True)


def shuffled_jpegs(folder: Path) -> DataFlow:
    ds = LMDBSerializer.load(str(folder / LMDB), shuffle=False)
    ds = LocallyShuffleData(ds, 50000)
    return BatchData(ds, BATCH, use_list=True)


def decoded(folder: Path) -> DataFlow:
    ds = LMDBSerializer.load(str(folder / LMDB), shuffle=False)
    ds = LocallyShuffleData(ds, 50000)
    ds = MapDataComponent(ds, lambda x: cv2.imdecode(x, cv2.IMREAD_COLOR), 0)
    ds = AugmentImageComponent(ds, lots_of_augmentors)
    return BatchData(ds, BATCH)


def decoded_by_processes(folder: Path) -> DataFlow:
    ds = LMDBSerializer.load(str(folder / LMDB), shuffle=False)
    ds = LocallyShuffleData(ds, 50000)
    augmentor = imgaug.AugmentorList(lots_of_augmentors)

    def f(datapoint: Any) -> Any:
        jpeg_str, label = datapoint
        return augmentor.augment(cv2.imdecode(jpeg_str, cv2.IMREAD_COLOR)), label

    ds = MultiProcessMapDataZMQ(ds, 2, f)
    return BatchData(ds, BATCH)


# DataFlow


def simple(folder: Path) -> DataFlow:
    ds = dataset.ILSVRC12(folder, "train", shuffle=True)
    ds = MapDataComponent(ds, lambda t: cv2.resize(t, (EDGE, EDGE)), 0)
    ds = BatchData(ds, BATCH)
    return MultiProcessRunnerZMQ(ds, 3)


# Distributed DataFlow


class MyLargeData(DataFlow):
    """Datapoints ``[name, array]``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __iter__(self) -> Iterator[Any]:
        for k in range(100):
            yield [self.name, np.full((8, 8), k)]


# wbaek/dataflow, README


class NetworkImagesImple(NetworkImages):
    def __init__(self, urls: list[str], shuffle: bool = False) -> None:
        super(NetworkImagesImple, self).__init__(shuffle)  # noqa: UP008  # as it is printed
        self.datapoints = [[url, label] for label, url in enumerate(urls)]


def network_images(urls: list[str]) -> DataFlow:
    ds = NetworkImagesImple(urls, shuffle=True).parallel(num_threads=4)
    return df.PrefetchDataZMQ(ds, nr_proc=2)


def main(pipeline: str, folder: str, address: str) -> None:
    ds = MyLargeData(folder) if pipeline == "MyLargeData" else globals()[pipeline](Path(folder))
    send_dataflow_zmq(ds, address)


if __name__ == "__main__":
    main(*sys.argv[1:])
