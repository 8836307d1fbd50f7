"""Owns an example of a pipeline: every photograph below a folder, cut to squares.

::

    cd examples/photos
    PYTHONPATH=.. dfserve produce photo_pipeline:make --to tcp://trainer:8877 --arg size=256
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from dfserve.dataflow import DataFlow, DataFromList, MapData

SUFFIXES = {".jpg", ".jpeg", ".png"}  # compared in lower case


def make(folder: str = ".", size: int = 224) -> DataFlow:
    """Return a pipeline of ``[image, name]``, shuffled anew for every pass.

    The image is uint8, (size, size, 3), RGB: the middle square of the photograph, resized. The name is the file's path
    below ``folder``, from which a trainer can tell the label.

    Args:
        folder: where the photographs are, at any depth; by default the current folder.
        size: edge of the square in pixels; 224 is what ImageNet models take.

    Raises:
        FileNotFoundError: there is no photograph below the folder.
    """
    root = Path(folder)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not names:
        raise FileNotFoundError(f"no {' or '.join(sorted(SUFFIXES))} file below {root.resolve()}")

    def read(datapoint: list[str]) -> list[Any]:
        (name,) = datapoint
        image = cv2.imread(str(root / name), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{root / name} cannot be read as an image")
        height, width = image.shape[:2]
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        square = cv2.resize(image[top : top + edge, left : left + edge], (size, size), interpolation=cv2.INTER_AREA)
        return [cv2.cvtColor(square, cv2.COLOR_BGR2RGB), name]

    return MapData(DataFromList([[name] for name in names]), read)
