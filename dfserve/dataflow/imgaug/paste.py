"""Owns the augmentors that put an image on a larger background, and the backgrounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, Points, as_points, as_size
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels
from dfserve.dataflow.imgaug.transform import BaseTransform, Transform
from dfserve.errors import DatapointError


class BackgroundFiller:
    """What makes a background for an image. A subclass defines ``_fill``, which gives the same for the same image."""

    def fill(self, background_shape: tuple[int, int], img: Image) -> Image:
        """Return a background for ``img``: of (h, w) ``background_shape``, with the channels of ``img``."""
        return self._fill(tuple(background_shape), img)

    def _fill(self, background_shape: tuple[int, ...], img: Image) -> Image:
        raise NotImplementedError(f"{type(self).__name__} does not define _fill")


class ConstantBackgroundFiller(BackgroundFiller):
    """Backgrounds of one value."""

    def __init__(self, value: float) -> None:
        """Fill with ``value``, rounded and saturated where the image has integers."""
        self.value = value

    def _fill(self, background_shape: tuple[int, ...], img: Image) -> Image:
        return np.full(background_shape + img.shape[2:], as_pixels(np.array(self.value, np.float64), img.dtype))

    def __repr__(self) -> str:
        return f"imgaug.ConstantBackgroundFiller(value={self.value!r})"


class PasteTransform(Transform):
    """The image on a background; points move with it."""

    def __init__(
        self, h: int, w: int, y0: int, x0: int, background_shape: tuple[int, int], background_filler: BackgroundFiller
    ) -> None:
        """Put images of ``h`` x ``w`` pixels on a background, their first row at ``y0`` and first column at ``x0``."""
        self.h = h
        self.w = w
        self.y0 = y0
        self.x0 = x0
        self.background_shape = background_shape
        self.background_filler = background_filler

    def apply_image(self, img: Image) -> Image:
        """Return the background, in the dtype of ``img``, with ``img`` on it.

        Raises:
            DatapointError: ``img`` has another size than (h, w), or the filler made a background of another shape.
        """
        if img.shape[:2] != (self.h, self.w):
            raise DatapointError(
                f"this transform is for images of {self.h} x {self.w} pixels (h x w), this one has shape {img.shape}"
            )
        background: Image = self.background_filler.fill(self.background_shape, img)
        if background.shape != self.background_shape + img.shape[2:]:
            raise DatapointError(
                f"{type(self.background_filler).__name__} made a background of shape {background.shape} for an image of"
                f" shape {img.shape}, not {self.background_shape + img.shape[2:]}"
            )
        # Other people's fillers may keep theirs, and hand it out again.
        if background.dtype != img.dtype or type(self.background_filler) is not ConstantBackgroundFiller:
            background = background.astype(img.dtype)
        background[self.y0 : self.y0 + self.h, self.x0 : self.x0 + self.w] = img
        return background

    def apply_coords(self, coords: Points) -> Points:
        points = as_points(coords)
        moved: Points = points + np.array([self.x0, self.y0], points.dtype)
        return moved


class CenterPaste(ImageAugmentor):
    """The image in the middle of a background."""

    def __init__(self, background_shape: Any, background_filler: BackgroundFiller | None = None) -> None:
        """Put images on a background.

        Args:
            background_shape: its size, (h, w) or one number for both, in pixels; no image may be larger.
            background_filler: what makes it; None: one of zeros.

        Raises:
            ConfigError: ``background_shape`` is no size.
        """
        super().__init__()
        self.background_shape = as_size(background_shape, "background_shape")
        self.background_filler = ConstantBackgroundFiller(0) if background_filler is None else background_filler

    def get_transform(self, img: Image) -> BaseTransform:
        """Return a PasteTransform.

        Raises:
            DatapointError: ``img`` is larger than the background.
        """
        h, w = img.shape[:2]
        high, wide = self.background_shape
        if h > high or w > wide:
            raise DatapointError(
                f"an image of shape {img.shape} does not fit on a background of {high} x {wide} pixels (h x w): resize"
                " it before, or give a larger background_shape"
            )
        y0, x0 = self._place(high - h, wide - w)
        return PasteTransform(h, w, y0, x0, self.background_shape, self.background_filler)

    def _place(self, rows: int, columns: int) -> tuple[int, int]:
        return rows // 2, columns // 2


class RandomPaste(CenterPaste):
    """The image at a random place of a background: each at which it fits is as likely."""

    def _place(self, rows: int, columns: int) -> tuple[int, int]:
        return int(self.rng.randint(rows + 1)), int(self.rng.randint(columns + 1))
