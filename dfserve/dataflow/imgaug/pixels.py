"""Owns the arithmetic of pixels: results are rounded to the nearest value and saturated, and never wrap around."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.errors import DatapointError

# Every value that a pixel of uint8 has. What depends on the value alone is computed 256 times and looked up: several
# times faster than over the image, and in double precision.
LEVELS = np.arange(256, dtype=np.float64).reshape(256, 1)

_CV_MEAN_CHANNELS = 4  # cv2.mean() takes no more
_LARGEST = (1 << 63) - 1024  # the largest float64 that is below 2**63, so that it can become an int64


def linear(
    img: Image, *, centre: Any = 0.0, gain: Any = 1.0, offset: Any = 0.0, dtype: Any = None, clip: bool = False
) -> Image:
    """Return ``(img - centre) * gain + offset``.

    Args:
        img: not changed.
        centre: a number, or an array with one for each channel; so are ``gain`` and ``offset``.
        gain: as above.
        offset: as above.
        dtype: of the result; None: that of ``img``.
        clip: clip the result to [0, 255].

    Raises:
        DatapointError: ``img`` is of a dtype that one does not calculate with.
    """
    dtype = img.dtype if dtype is None else np.dtype(dtype)
    alike = all(np.size(number) == 1 for number in (centre, gain, offset))  # for all channels
    rows = img.reshape(img.shape[0], -1)
    if img.dtype != np.uint8:
        # numpy is slow at repeating three numbers, and fast at repeating as many as a row has.
        if not alike:
            centre, gain, offset = (_along(number, rows) for number in (centre, gain, offset))
        values = np.subtract(rows, centre, dtype=working_dtype(img.dtype))
        values *= gain
        values += offset
        return as_pixels(values, dtype, clip).reshape(img.shape)
    if alike and dtype == np.uint8:
        # cv2 rounds and saturates, twice as fast as it looks up.
        scale, shift = np.asarray(gain).item(), np.asarray(offset - centre * gain).item()
        return cv2.addWeighted(rows, scale, rows, 0, shift).reshape(img.shape)
    return look_up(img, as_pixels((LEVELS - centre) * gain + offset, dtype, clip))


def _along(number: Any, rows: Image) -> Any:
    channels = np.size(number)
    return number if channels == 1 else np.tile(number, rows.shape[1] // channels)


def look_up(img: Image, table: npt.NDArray[Any]) -> Image:
    """Return ``img``, of uint8, with each value replaced by that in ``table``: shape (256, 1) or (256, channels)."""
    channels = table.shape[1]
    if channels == 1:
        looked_up: Image = cv2.LUT(img.reshape(img.shape[0], -1), table).reshape(img.shape)
        return looked_up
    if channels > _CV_MEAN_CHANNELS:
        return table[img, np.arange(channels)]
    return cv2.LUT(img, table.reshape(1, 256, channels))


def as_pixels(values: npt.NDArray[Any], dtype: np.dtype[Any], clip: bool = False) -> Image:
    """Return ``values``, which may be overwritten, as pixels of ``dtype``: integers rounded and saturated.

    Args:
        values: floating point.
        dtype: of the result.
        clip: clip to [0, 255] whatever ``dtype`` is.
    """
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = (max(info.min, 0), min(info.max, 255)) if clip else (info.min, min(info.max, _LARGEST))
        np.rint(values, out=values)
        np.clip(values, low, high, out=values)
    elif clip:
        np.clip(values, 0, 255, out=values)
    pixels: Image = values.astype(dtype, copy=False)
    return pixels


def working_dtype(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return the floating point to calculate with: float32 where that holds every value of ``dtype``, else float64.

    Raises:
        DatapointError: ``dtype`` is neither of integers nor floating point.
    """
    if dtype.kind not in "iuf":
        raise DatapointError(
            f"an image of dtype {dtype} has no brightness to change: convert it, e.g. img.astype(np.uint8), or leave it"
            " out of this augmentor"
        )
    small = dtype.itemsize <= 2 or dtype == np.float32
    return np.float32 if small else np.float64


def in_cv_dtype(img: Image) -> Image:
    """Return ``img`` if cv2's conversions of colour take its dtype (uint8 and float32), else as float32."""
    if img.dtype == np.uint8 or img.dtype == np.float32:
        return img
    working_dtype(img.dtype)  # refuses what is no number
    return img.astype(np.float32)


def channel_means(img: Image) -> npt.NDArray[np.float64]:
    """Return the mean of each channel; an image of shape (h, w) has one."""
    channels = img.shape[2] if img.ndim == 3 else 1
    if channels <= _CV_MEAN_CHANNELS and (img.dtype == np.uint8 or img.dtype == np.float32):
        return np.array(cv2.mean(img)[:channels])  # 100 times faster than numpy's
    means: npt.NDArray[np.float64] = img.reshape(-1, channels).mean(axis=0, dtype=np.float64)
    return means


def need_colour(img: Image, augmentor: object) -> None:
    """Raise a DatapointError unless ``img`` has three channels."""
    if img.ndim != 3 or img.shape[2] != 3:
        raise DatapointError(
            f"{type(augmentor).__name__} needs an image of shape (h, w, 3), this one has shape {img.shape}: read it in"
            " colour (cv2.IMREAD_COLOR), or convert it before (imgaug.ColorSpace)"
        )


def mean_and_std(img: Image, together: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return mean and standard deviation in float64: one for all channels ``together``, else one for each."""
    channels = 1 if together or img.ndim == 2 else img.shape[2]
    if channels <= _CV_MEAN_CHANNELS and (img.dtype == np.uint8 or img.dtype == np.float32):
        mean, std = cv2.meanStdDev(img.reshape(img.shape[0], -1, channels))
        return mean.ravel(), std.ravel()
    values = img.reshape(-1, channels).astype(np.float64)
    return values.mean(axis=0), values.std(axis=0)
