"""Owns the augmentors that convert an image: to another colour space, to grey, to another dtype."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels, in_cv_dtype
from dfserve.errors import ConfigError, DatapointError

_UINT8 = np.dtype(np.uint8)


class ColorSpace(PhotometricAugmentor):
    """The image in another colour space."""

    def __init__(self, mode: int, keepdims: bool = True) -> None:
        """Convert with ``cv2.cvtColor``.

        Args:
            mode: cv2's code of the conversion, e.g. ``cv2.COLOR_BGR2HSV``.
            keepdims: an image of shape (h, w, channels) that becomes grey keeps its three axes: (h, w, 1).
        """
        super().__init__()
        self.mode = mode
        self.keepdims = keepdims

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # nothing is random here
        source = img if img.dtype == np.uint16 else in_cv_dtype(img)
        try:
            converted = cv2.cvtColor(source, self.mode)
        except cv2.error as error:
            raise DatapointError(
                f"cv2 cannot convert an image of shape {img.shape} and dtype {img.dtype} with mode {self.mode}:"
                f" {str(error).strip()}"
            ) from error
        if self.keepdims and img.ndim == 3 and converted.ndim == 2:
            converted = converted[:, :, np.newaxis]
        return converted if source is img else as_pixels(converted, img.dtype)


class Grayscale(ColorSpace):
    """The image in grey."""

    def __init__(self, keepdims: bool = True, rgb: bool = False, keepshape: bool = False) -> None:
        """Convert images of shape (h, w, 3).

        Args:
            keepdims: return shape (h, w, 1); else (h, w).
            rgb: the channels are red, green, blue; else blue, green, red, as cv2 reads them.
            keepshape: return shape (h, w, 3), with the grey image three times.

        Raises:
            ConfigError: ``keepshape`` without ``keepdims``.
        """
        if keepshape and not keepdims:
            raise ConfigError("Grayscale(keepdims=False, keepshape=True): what keeps its shape keeps its dimensions")
        super().__init__(cv2.COLOR_RGB2GRAY if rgb else cv2.COLOR_BGR2GRAY, keepdims)
        self.rgb = rgb
        self.keepshape = keepshape

    def _augment(self, img: Image, params: Any) -> Image:
        grey = super()._augment(img, params)
        if not self.keepshape:
            return grey
        channel = in_cv_dtype(grey[:, :, 0])
        return cv2.merge((channel, channel, channel)).astype(img.dtype, copy=False)


class ToUint8(PhotometricAugmentor):
    """The image in uint8: clipped to [0, 255] and rounded. It makes what is sent to other processes smaller."""

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # as above
        if img.dtype == np.uint8:
            return img
        if img.dtype.kind == "f":
            return as_pixels(np.rint(img), _UINT8)
        if img.dtype.kind in "iu":
            img = np.clip(img, 0, min(255, int(np.iinfo(img.dtype).max)))  # numpy refuses bounds that a dtype lacks
        return img.astype(np.uint8)


class ToFloat32(PhotometricAugmentor):
    """The image in float32: what follows rounds nothing. Values stay, so that those of uint8 are from 0 to 255."""

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # as above
        return img.astype(np.float32, copy=False)
