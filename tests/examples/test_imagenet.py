"""The pipeline for ImageNet, on a small folder of the same shape."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dfserve.dataflow import RemoteDataZMQ

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "imagenet.py"
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))

# What is forked here has no lock of another thread's to wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of two classes; ``train`` has each photograph twice, ``val`` once."""
    root = tmp_path_factory.mktemp("ILSVRC12")
    for number, photo in enumerate(PHOTOS):
        for path in (f"train/n{number % 2}/{number}a", f"train/n{number % 2}/{number}b", f"val/n{number % 2}/{number}"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).with_suffix(".JPEG").write_bytes(photo.read_bytes())
    return str(root)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def run(ds: Any) -> list[Any]:
    ds.reset_state()
    return list(ds)


def test_training_images_are_squares_that_differ_from_pass_to_pass(example: dict[str, Any], folder: str) -> None:
    ds = example["make"](folder)
    images = run(ds) + list(ds)
    assert {(image.shape, image.dtype) for image, _ in images} == {((224, 224, 3), np.dtype("uint8"))}
    assert sorted(label for _, label in images) == [0] * 8 + [1] * 8
    assert len({image.tobytes() for image, _ in images}) == 16


def test_validation_images_are_the_middle_of_the_file_in_the_order_of_the_files(
    example: dict[str, Any], folder: str
) -> None:
    ds = example["make"](folder, "val")
    images = run(ds)
    assert [label for _, label in images] == [0, 0, 1, 1]
    for path, (image, _) in zip(sorted(Path(folder).glob("val/*/*")), images, strict=True):
        whole = cv2.imread(str(path))
        height, width = (max(256, round(256 * edge / min(whole.shape[:2]))) for edge in whole.shape[:2])
        resized = cv2.resize(whole, (width, height))
        top, left = (height - 224) // 2, (width - 224) // 2
        assert np.array_equal(image, resized[top : top + 224, left : left + 224])
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(images, ds, strict=True))


def test_processes_make_the_validation_batches_of_every_image_once_in_order(
    example: dict[str, Any], folder: str
) -> None:
    images, labels = zip(*run(example["batches"](folder, "val", 3)), strict=True)
    assert [len(batch) for batch in labels] == [3, 1]
    alone = run(example["make"](folder, "val"))
    assert np.array_equal(np.concatenate(images), np.stack([image for image, _ in alone]))
    assert np.concatenate(labels).tolist() == [label for _, label in alone]


def test_processes_make_training_batches(example: dict[str, Any], folder: str) -> None:
    got = run(example["batches"](folder, size=4))
    assert [(image.shape, label.shape) for image, label in got] == [((4, 224, 224, 3), (4,))] * 2


def test_a_producer_sends_it(dfserve: Callable[..., Any], folder: str, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/broker"
    path = os.pathsep.join([str(ROOT), str(EXAMPLE.parent)])
    with RemoteDataZMQ(address, timeout=60) as ds:
        producer = dfserve(
            "produce", "imagenet:make", "--to", address, "--passes", "1", "--arg", f"folder={folder}", PYTHONPATH=path
        )
        assert sorted(label for _, label in ds) == [0] * 4 + [1] * 4
    assert producer.wait() == 0


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"]])
def test_without_a_folder_it_says_how_it_is_called(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: imagenet.py FOLDER [train|val]" in done.stderr


def test_run_by_itself_it_says_how_fast_it_is(folder: str) -> None:
    command = [sys.executable, EXAMPLE, folder, "val"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "BatchData: 1 datapoints in " in done.stderr
