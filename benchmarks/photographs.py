"""Owns the JPEG files that benchmarks read: cuts of the photographs in scikit-image's wheel, in ImageNet's sizes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# The coloured ones in scikit-image's wheel, so that nothing is downloaded.
PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg",
)  # fmt: skip
CUTS = 64  # of each: 512 files
WIDTHS, HEIGHTS = (400, 500), (350, 375)  # pixels; most of ImageNet's lie there
LEAST = 0.6  # of the photograph's edges, as much as a cut has
QUALITY = 98  # percent; about 0.6 bytes for each pixel, as ImageNet's files have
SEED = 1  # the same files in each run


def make(folder: Path, cuts: int = CUTS) -> None:
    """Write ``cuts`` JPEG files of each photograph to ``folder``."""
    import cv2
    import skimage

    rng = np.random.RandomState(SEED)
    for photo in PHOTOS:
        path = Path(str(skimage.__file__)).parent / "data" / photo
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        for number in range(cuts):
            cut = _cut(cv2, image, rng)
            cv2.imwrite(str(folder / f"{path.stem}_{number:03d}.jpg"), cut, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


@contextmanager
def photographs(folder: Path | None) -> Iterator[list[Path]]:
    """Hand out the JPEG files of ``folder``, read once so that they are in memory; None: those that are made here."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dfserve-photos-")))
            make(folder)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise FileNotFoundError(f"there is no .jpg or .jpeg file in {folder}")
        for file in files:
            file.read_bytes()
        yield files


def _cut(cv2: Any, image: Any, rng: np.random.RandomState) -> Any:
    height, width = (round(edge * rng.uniform(LEAST, 1.0)) for edge in image.shape[:2])
    top = rng.randint(image.shape[0] - height + 1)
    left = rng.randint(image.shape[1] - width + 1)
    size = int(rng.randint(*WIDTHS)), int(rng.randint(*HEIGHTS))
    return cv2.resize(image[top : top + height, left : left + width], size, interpolation=cv2.INTER_AREA)
