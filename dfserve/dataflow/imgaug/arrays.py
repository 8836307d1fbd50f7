"""Owns what counts as an image, as points and as a size, and the errors for what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dfserve.errors import ConfigError, DatapointError

Image = npt.NDArray[Any]
Points = npt.NDArray[Any]


def check_image(img: Any) -> None:
    """Raise a DatapointError unless ``img`` is an ndarray of shape (h, w) or (h, w, channels) with a pixel in it."""
    if img is None:
        raise DatapointError("the image is None, which cv2.imread and cv2.imdecode return for what they cannot read")
    if not isinstance(img, np.ndarray):
        raise DatapointError(f"an image is a numpy array, this is a {type(img).__name__}")
    if img.ndim not in (2, 3) or not img.size:
        raise DatapointError(
            f"an image has shape (h, w) or (h, w, channels) and at least one pixel, this one has shape {img.shape}"
        )


def as_points(coords: Any) -> Points:
    """Return ``coords`` as an array of floating point; integers become float64, since what is between pixels counts.

    Raises:
        DatapointError: its shape is not (N, 2).
    """
    points = np.asarray(coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DatapointError(
            f"points are an array of shape (N, 2), each row (x, y); this has shape {points.shape}:"
            " give the corners of boxes as points (boxes.reshape(-1, 2))"
        )
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def as_size(size: Any, name: str) -> tuple[int, int]:
    """Return ``size``, (h, w) or one number for both, as two ints.

    Raises:
        ConfigError: it is something else, or not positive; the message calls it ``name``.
    """
    pair = tuple(size) if isinstance(size, (list, tuple, np.ndarray)) else (size, size)
    whole = all(isinstance(side, (int, np.integer)) and side > 0 for side in pair)
    if len(pair) != 2 or not whole:
        raise ConfigError(f"{name} is {size!r}: give (h, w) or one number for both, positive whole numbers of pixels")
    return int(pair[0]), int(pair[1])


def as_range(bounds: Any, name: str) -> tuple[float, float]:
    """Return ``bounds``, (low, high) with 0 < low <= high.

    Raises:
        ConfigError: it is something else; the message calls it ``name``.
    """
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ConfigError(f"{name} is {bounds!r}: give (low, high) with 0 < low <= high")
    return bounds[0], bounds[1]


def keep_channels(img: Image, result: Image) -> Image:
    """Give ``result`` back the axis of a single channel that ``img`` had, since cv2 drops it."""
    return result if result.ndim == img.ndim else result[:, :, np.newaxis]
