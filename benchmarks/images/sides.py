"""Owns the list of sides: what each is called, what it needs, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.images import bare, ours, rival_tensorpack, rival_torch
from benchmarks.received import received
from benchmarks.rounds import Figures

WORKERS = 2  # processes, or threads, that work on images


@dataclass(frozen=True)
class Side:
    """One row.

    Attributes:
        title: as the table shows it.
        images: yields images for ever; None: plain loops.
        augmentors: the package whose augmentors do the work.
        needs: modules without which it is skipped.
        aim: the share of the plain loops' rate that is wanted.
    """

    title: str
    images: Callable[[Sequence[str], int], Iterator[Any]] | None
    augmentors: str = "dfserve"
    needs: tuple[str, ...] = ()
    aim: float | None = None


SIDES = {
    "bare": Side("plain loops", None),
    "bare_tensorpack": Side("plain loops, tensorpack's augmentors", None, "tensorpack", ("tensorpack.dataflow",)),
    "ours": Side("dfserve MultiProcessRunnerZMQ", ours.runner_zmq, aim=0.85),
    "ours_runner": Side("dfserve MultiProcessRunner", ours.runner),
    "ours_map": Side("dfserve MultiProcessMapData", ours.process_map),
    "ours_threads": Side("dfserve MultiThreadMapData", ours.thread_map),
    "ours_produced": Side("dfserve produce, broker, consumer", ours.produced, aim=0.9),
    "rival_tensorpack": Side(
        "tensorpack MultiProcessRunnerZMQ", rival_tensorpack.runner_zmq, "tensorpack", ("tensorpack.dataflow",)
    ),
    "rival_torch": Side("PyTorch DataLoader, images alone", rival_torch.one_by_one, needs=("torch.utils.data",)),
    "rival_torch_batches": Side("PyTorch DataLoader, batches of 64", rival_torch.batches, needs=("torch.utils.data",)),
}
YARDSTICKS = {"dfserve": "bare", "tensorpack": "bare_tensorpack"}  # by augmentors


def measure(name: str, files: Sequence[str], seconds: float) -> Figures:
    """Measure a side in this process."""
    side = SIDES[name]
    if side.images is None:
        return bare.measure(side.augmentors, files, WORKERS, seconds)
    return received(side.images(files, WORKERS), seconds)
