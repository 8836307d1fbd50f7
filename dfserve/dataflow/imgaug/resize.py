"""Owns the augmentors that give the image another size: Resize, ResizeShortestEdge, RandomResize."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, as_range, as_size
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.transform import BaseTransform, ResizeTransform
from dfserve.errors import ConfigError

log = logging.getLogger("dfserve.dataflow")

_TRIES = 50  # of RandomResize for one image, as in tensorpack: it ends even where no size can satisfy it


class Resize(ImageAugmentor):
    """The image in one given size."""

    def __init__(self, shape: Any, interp: int = cv2.INTER_LINEAR) -> None:
        """Resize.

        Args:
            shape: (h, w) in pixels, or one number for both.
            interp: cv2's interpolation method.

        Raises:
            ConfigError: ``shape`` is something else.
        """
        super().__init__()
        self.shape = as_size(shape, "shape")
        self.interp = interp

    def get_transform(self, img: Image) -> BaseTransform:
        return ResizeTransform(img.shape[0], img.shape[1], *self.shape, self.interp)


class ResizeShortestEdge(ImageAugmentor):
    """The image with a given shorter side and the same aspect ratio (up to a rounding of the longer side)."""

    def __init__(self, size: int, interp: int = cv2.INTER_LINEAR) -> None:
        """Resize.

        Args:
            size: the shorter side's length in pixels. The longer one's is not limited: 10 x 10,000 pixels become
                224 x 224,000 with ``size=224``.
            interp: cv2's interpolation method.

        Raises:
            ConfigError: ``size`` is not positive.
        """
        super().__init__()
        self.size = as_size(int(size), "size")[0]
        self.interp = interp

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        if h < w:
            new_h, new_w = self.size, int(self.size / h * w + 0.5)
        else:
            new_h, new_w = int(self.size / w * h + 0.5), self.size
        return ResizeTransform(h, w, new_h, new_w, self.interp)


class RandomResize(ImageAugmentor):
    """The image in a random size, with about its aspect ratio."""

    def __init__(
        self,
        xrange: tuple[float, float],
        yrange: tuple[float, float] | None = None,
        minimum: tuple[int, int] = (0, 0),
        aspect_ratio_thres: float = 0.15,
        interp: int = cv2.INTER_LINEAR,
    ) -> None:
        """Resize.

        Args:
            xrange: (low, high). If one of them is a float: by what factor the width may change. If both are ints: the
                new width in pixels.
            yrange: the same for the height; None only with ``aspect_ratio_thres=0``.
            minimum: (w, h) in pixels, below which no image is made smaller.
            aspect_ratio_thres: sizes that change the aspect ratio by more than this share of it are drawn again, up
                to 50 times; then the image keeps its size, and the log says so. 0: keep the aspect ratio, so that
                ``xrange`` alone is drawn from.
            interp: cv2's interpolation method.

        Raises:
            ConfigError: the ranges are no pairs of positive numbers in order, or do not fit together.
        """
        super().__init__()
        self.xrange = as_range(xrange, "xrange")
        self.yrange = None if yrange is None else as_range(yrange, "yrange")
        self.minimum = minimum
        self.aspect_ratio_thres = aspect_ratio_thres
        self.interp = interp
        self._is_scale = _is_scale(xrange)
        self._check_threshold()

    def _check_threshold(self) -> None:
        if self.aspect_ratio_thres < 0:
            raise ConfigError(f"aspect_ratio_thres is {self.aspect_ratio_thres}: it must not be negative")
        if self.yrange is None:
            if self.aspect_ratio_thres > 0:
                raise ConfigError("RandomResize needs a yrange too; or give aspect_ratio_thres=0 to keep the ratio")
        elif _is_scale(self.yrange) != self._is_scale:
            raise ConfigError(f"xrange={self.xrange} and yrange={self.yrange}: both ints (pixels) or both floats")
        elif self.aspect_ratio_thres == 0 and self._is_scale and self.xrange != self.yrange:
            raise ConfigError(
                f"xrange={self.xrange} and yrange={self.yrange} differ, but aspect_ratio_thres=0 keeps the ratio:"
                " leave yrange out"
            )

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        for _ in range(_TRIES):
            new_h, new_w = self._draw_size(h, w)
            change = abs(new_w / new_h * h / w - 1)
            if self.aspect_ratio_thres == 0 or change < self.aspect_ratio_thres + 1e-5:
                return ResizeTransform(h, w, new_h, new_w, self.interp)
        log.warning("%r found no size for an image of %d x %d pixels (h x w): it keeps that size", self, h, w)
        return ResizeTransform(h, w, h, w, self.interp)

    def _draw_size(self, h: int, w: int) -> tuple[int, int]:
        x, y = self.rng.random_sample(2).tolist()
        width = self.xrange[0] + x * (self.xrange[1] - self.xrange[0])
        if self.yrange is None or self.aspect_ratio_thres == 0:
            height = width if self._is_scale else width / w * h
        else:
            height = self.yrange[0] + y * (self.yrange[1] - self.yrange[0])
        if self._is_scale:
            width, height = width * w, height * h
        return max(1, int(max(height, self.minimum[1]) + 0.5)), max(1, int(max(width, self.minimum[0]) + 0.5))


def _is_scale(bounds: tuple[float, float]) -> bool:
    return any(isinstance(bound, (float, np.floating)) for bound in bounds)
