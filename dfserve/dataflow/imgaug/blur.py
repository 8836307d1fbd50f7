"""Owns the augmentor that blurs an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels, in_cv_dtype
from dfserve.errors import ConfigError


class GaussianBlur(PhotometricAugmentor):
    """The image blurred with a Gaussian window of random size."""

    def __init__(
        self,
        size_range: int | Sequence[int] = (0, 3),
        sigma_range: Sequence[float] = (0, 0),
        symmetric: bool = True,
        max_size: int | None = None,
    ) -> None:
        """Blur with a window of ``2 * size + 1`` pixels.

        Args:
            size_range: draw the size from [size_range[0], size_range[1]); one number n means (0, n).
            sigma_range: draw the sigma from [sigma_range[0], sigma_range[1]), in pixels; 0: what cv2 derives from the
                size.
            symmetric: the same size and sigma in x and y.
            max_size: the old name of ``size_range=max_size``. Deprecated.

        Raises:
            ConfigError: a range is empty, negative, or no pair.
        """
        super().__init__()
        if max_size is not None:
            warnings.warn("max_size is the old name of size_range", DeprecationWarning, stacklevel=2)
            size_range = max_size
        low, high = size_range if isinstance(size_range, (list, tuple)) else (0, size_range)
        if not 0 <= low < high:
            raise ConfigError(f"GaussianBlur(size_range={size_range!r}): give (low, high) with 0 <= low < high")
        if not isinstance(sigma_range, (list, tuple)) or len(sigma_range) != 2 or min(sigma_range) < 0:
            raise ConfigError(f"GaussianBlur(sigma_range={sigma_range!r}): give (low, high), none negative")
        self.size_range = (low, high)
        self.sigma_range = sigma_range
        self.symmetric = symmetric

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # the same for every image
        sizes = (self.rng.randint(*self.size_range, size=2) * 2 + 1).tolist()
        sigmas = self._rand_range(self.sigma_range[0], self.sigma_range[1], 2).tolist()
        if self.symmetric:
            sizes[1], sigmas[1] = sizes[0], sigmas[0]
        return tuple(sizes), tuple(sigmas)

    def _augment(self, img: Image, params: Any) -> Image:
        size, sigma = params
        # A single channel's axis, which cv2 drops, comes back.
        blurred: Image = cv2.GaussianBlur(
            in_cv_dtype(img), size, sigmaX=sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_REPLICATE
        ).reshape(img.shape)
        return blurred if blurred.dtype == np.uint8 else as_pixels(blurred, img.dtype)
