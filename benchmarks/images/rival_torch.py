"""Owns PyTorch's sides: a DataLoader over a Dataset that does the same work with dfserve's augmentors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.images.work import Augment
from dfserve.dataflow import imgaug

BATCH = 64  # images
PASSES = 200  # over the files in one epoch: its end, where a DataLoader drains, is not what is measured


class Files:
    """A map-style Dataset: ``[image, label]`` by index."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self._augment = Augment(imgaug)

    def __len__(self) -> int:
        return len(self._files) * PASSES

    def __getitem__(self, index: int) -> list[Any]:
        return self._augment((self._files[index % len(self._files)], 7))


def one_by_one(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield images for ever, each sent alone, with no collate function."""
    return _images(files, workers, None)


def batches(files: Sequence[str], workers: int) -> Iterator[Any]:
    """Yield batches for ever, which the workers make with the default collate function."""
    return _images(files, workers, BATCH)


def _images(files: Sequence[str], workers: int, batch_size: int | None) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        Files(files),  # type: ignore[arg-type]  # it has what a Dataset has
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )
    while True:
        for image, _ in loader:
            yield image.numpy()
