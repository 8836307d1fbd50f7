"""Owns the augmentors that cut a part out of the image."""

from __future__ import annotations

import math
import warnings
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, as_range, as_size
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.transform import BaseTransform, CropTransform, ResizeTransform, TransformList
from dfserve.errors import ConfigError, DatapointError

_TRIES = 10  # of GoogleNetRandomCropAndResize for one image, as in fb.resnet.torch


class RandomCrop(ImageAugmentor):
    """A part of given size from a random place."""

    def __init__(self, crop_shape: Any) -> None:
        """Crop.

        Args:
            crop_shape: (h, w) in pixels, or one number for both.

        Raises:
            ConfigError: it is something else.
        """
        super().__init__()
        self.crop_shape = as_size(crop_shape, "crop_shape")

    def get_transform(self, img: Image) -> BaseTransform:
        """Choose a place; all are equally likely.

        Raises:
            DatapointError: the image is smaller than the part.
        """
        h, w = self.crop_shape
        free_h, free_w = _margins(img, h, w)
        y, x = self.rng.random_sample(2).tolist()
        return CropTransform(int(y * (free_h + 1)), int(x * (free_w + 1)), h, w)


class CenterCrop(ImageAugmentor):
    """A part of given size from the middle."""

    def __init__(self, crop_shape: Any) -> None:
        """Crop.

        Args:
            crop_shape: (h, w) in pixels, or one number for both.

        Raises:
            ConfigError: it is something else.
        """
        super().__init__()
        self.crop_shape = as_size(crop_shape, "crop_shape")

    def get_transform(self, img: Image) -> BaseTransform:
        """Choose the middle; an odd margin is larger by one pixel at the bottom and at the right.

        Raises:
            DatapointError: the image is smaller than the part.
        """
        h, w = self.crop_shape
        free_h, free_w = _margins(img, h, w)
        return CropTransform(free_h // 2, free_w // 2, h, w)


class RandomCropRandomShape(ImageAugmentor):
    """A part of random size from a random place."""

    def __init__(
        self,
        wmin: int,
        hmin: int,
        wmax: int | None = None,
        hmax: int | None = None,
        max_aspect_ratio: float | None = None,
    ) -> None:
        """Crop.

        Args:
            wmin: the least width in pixels.
            hmin: the least height.
            wmax: the greatest width, itself included; never more than the image's, which is the default.
            hmax: the greatest height, likewise.
            max_aspect_ratio: without effect, as in tensorpack; deprecated.

        Raises:
            ConfigError: a minimum is below 1 or above its maximum.
        """
        super().__init__()
        if max_aspect_ratio is not None:
            warnings.warn("max_aspect_ratio never had an effect: leave it out", DeprecationWarning, stacklevel=2)
        for name, low, high in (("w", wmin, wmax), ("h", hmin, hmax)):
            if low < 1 or (high is not None and high < low):
                raise ConfigError(f"{name}min={low}, {name}max={high}: must be 1 <= {name}min <= {name}max, in pixels")
        self.wmin = wmin
        self.hmin = hmin
        self.wmax = wmax
        self.hmax = hmax
        self.max_aspect_ratio = max_aspect_ratio

    def get_transform(self, img: Image) -> BaseTransform:
        """Choose a size, then a place; all are equally likely.

        Raises:
            DatapointError: the image is smaller than the smallest part.
        """
        free_h, free_w = _margins(img, self.hmin, self.wmin)
        if self.hmax is not None:
            free_h = min(free_h, self.hmax - self.hmin)
        if self.wmax is not None:
            free_w = min(free_w, self.wmax - self.wmin)
        drawn = self.rng.random_sample(4).tolist()
        h = self.hmin + int(drawn[0] * (free_h + 1))
        w = self.wmin + int(drawn[1] * (free_w + 1))
        return CropTransform(int(drawn[2] * (img.shape[0] - h + 1)), int(drawn[3] * (img.shape[1] - w + 1)), h, w)


class GoogleNetRandomCropAndResize(ImageAugmentor):
    """A part of random area, aspect ratio and place, resized to a square: the standard crop for training on ImageNet.

    From Szegedy et al., "Going Deeper with Convolutions", 2015, section 6, with the details of fb.resnet.torch: the
    aspect ratio is drawn evenly, then inverted or not; up to ten parts are drawn until one fits into the image. If
    none does, the largest square in the middle is taken.
    """

    def __init__(
        self,
        crop_area_fraction: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (0.75, 1.333),
        target_shape: int = 224,
        interp: int = cv2.INTER_LINEAR,
    ) -> None:
        """Crop and resize.

        Args:
            crop_area_fraction: least and greatest area of the part, as a share of the image's.
            aspect_ratio_range: least and greatest width / height of the part, before it is inverted or not.
            target_shape: the side of the resulting square in pixels; 224 is ImageNet's custom.
            interp: cv2's interpolation method.

        Raises:
            ConfigError: a range is no pair of positive numbers in order, the area is above 1, or ``target_shape`` is
                no positive number.
        """
        super().__init__()
        self.crop_area_fraction = as_range(crop_area_fraction, "crop_area_fraction")
        self.aspect_ratio_range = as_range(aspect_ratio_range, "aspect_ratio_range")
        if self.crop_area_fraction[1] > 1:
            raise ConfigError(f"crop_area_fraction is {crop_area_fraction!r}: no part is larger than the whole, 1.0")
        if not isinstance(target_shape, (int, np.integer)) or target_shape < 1:
            raise ConfigError(f"target_shape is {target_shape!r}: give the side of the square, a number of pixels")
        self.target_shape = target_shape
        self.interp = interp

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        y, x, crop_h, crop_w = self._draw_crop(h, w)
        target = self.target_shape
        return TransformList(
            [CropTransform(y, x, crop_h, crop_w), ResizeTransform(crop_h, crop_w, target, target, self.interp)]
        )

    def _draw_crop(self, h: int, w: int) -> tuple[int, int, int, int]:
        area, (least, most) = h * w, self.crop_area_fraction
        flattest, widest = self.aspect_ratio_range
        draw = self.rng.random_sample
        for _ in range(_TRIES):
            # One call for five numbers: drawn one by one they cost more than all the rest of this.
            size, shape, turn, down, right = draw(5).tolist()
            crop_area = area * (least + (most - least) * size)
            ratio = flattest + (widest - flattest) * shape
            crop_w, crop_h = int(math.sqrt(crop_area * ratio) + 0.5), int(math.sqrt(crop_area / ratio) + 0.5)
            if turn < 0.5:
                crop_w, crop_h = crop_h, crop_w
            if 0 < crop_h <= h and 0 < crop_w <= w:
                return int(down * (h - crop_h + 1)), int(right * (w - crop_w + 1)), crop_h, crop_w
        side = min(h, w)
        return (h - side) // 2, (w - side) // 2, side, side


def _margins(img: Image, h: int, w: int) -> tuple[int, int]:
    """Return how many rows and columns of ``img`` a part of ``h`` x ``w`` pixels leaves over."""
    free_h, free_w = img.shape[0] - h, img.shape[1] - w
    if free_h < 0 or free_w < 0:
        raise DatapointError(
            f"cannot crop {h} x {w} pixels (h x w) from an image of {img.shape[0]} x {img.shape[1]}:"
            " resize it first (ResizeShortestEdge), or crop less"
        )
    return free_h, free_w
