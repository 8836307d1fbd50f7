"""Owns the augmentor that blanks a random rectangle of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, Points
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels
from dfserve.dataflow.imgaug.transform import BaseTransform, Transform
from dfserve.errors import ConfigError, DatapointError


class CutoutTransform(Transform):
    """A rectangle of the image set to one value; points stay."""

    def __init__(self, y0: int, x0: int, h: int, w: int, fill: Any) -> None:
        """Fill ``h`` rows from row ``y0`` on and ``w`` columns from column ``x0`` on."""
        self.y0 = y0
        self.x0 = x0
        self.h = h
        self.w = w
        self.fill = fill

    def apply_image(self, img: Image) -> Image:
        cut: Image = img.copy()
        value = as_pixels(np.array(self.fill, np.float64), img.dtype)
        cut[self.y0 : self.y0 + self.h, self.x0 : self.x0 + self.w] = value
        return cut

    def apply_coords(self, coords: Points) -> Points:
        return coords


class RandomCutout(ImageAugmentor):
    """The image with a rectangle at a random place blanked. After DeVries and Taylor, "Cutout", arXiv:1708.04552.

    Unlike there, the rectangle lies within the image.
    """

    def __init__(self, h_range: int | tuple[int, int], w_range: int | tuple[int, int], fill: float = 0.0) -> None:
        """Blank a rectangle.

        Args:
            h_range: its height in pixels, or (low, high) to draw it from [low, high).
            w_range: its width, as above.
            fill: the value, rounded and saturated where the image has integers.

        Raises:
            ConfigError: a range is empty, or has a size that is not positive.
        """
        super().__init__()
        self.h_range = h_range
        self.w_range = w_range
        self.fill = fill
        self._heights = _bounds("h_range", h_range)
        self._widths = _bounds("w_range", w_range)

    def get_transform(self, img: Image) -> BaseTransform:
        """Draw the rectangle.

        Raises:
            DatapointError: it is larger than the image.
        """
        h, w = int(self.rng.randint(*self._heights)), int(self.rng.randint(*self._widths))
        if h > img.shape[0] or w > img.shape[1]:
            raise DatapointError(
                f"RandomCutout drew a rectangle of {h} x {w} pixels (h x w), this image has shape {img.shape}: resize"
                " it before, or lower h_range and w_range"
            )
        y0 = int(self.rng.randint(img.shape[0] + 1 - h))
        x0 = int(self.rng.randint(img.shape[1] + 1 - w))
        return CutoutTransform(y0, x0, h, w, self.fill)


def _bounds(name: str, given: int | tuple[int, int]) -> tuple[int, int]:
    low, high = given if isinstance(given, (list, tuple)) else (given, given + 1)
    if not 0 < low < high:
        raise ConfigError(
            f"RandomCutout({name}={given!r}): give a number of pixels, or (low, high) with 0 < low < high"
        )
    return low, high
