"""Owns the augmentors that bring images to a common scale, in float32: of mean and variance, or of extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import linear, mean_and_std


class MeanVarianceNormalize(PhotometricAugmentor):
    """The image in float32 with mean 0 and variance 1: ``(x - mean) / max(std, 1 / sqrt(size))``.

    The size is that of the whole array. The bound keeps an image of one value from a division by zero; it is that of
    ``tf.image.per_image_standardization``.
    """

    def __init__(self, all_channel: bool = True) -> None:
        """Use one mean and variance for all channels together, or, with ``all_channel=False``, one for each."""
        super().__init__()
        self.all_channel = all_channel

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # nothing is random here
        mean, std = mean_and_std(img, self.all_channel)
        return linear(img, centre=mean, gain=1.0 / np.maximum(std, img.size**-0.5), dtype=np.float32)


class MinMaxNormalize(PhotometricAugmentor):
    """The image in float32 with its values spread from ``min`` to ``max``; one of a single value becomes ``min``."""

    def __init__(self, min: float = 0, max: float = 255, all_channel: bool = True) -> None:
        """Spread to [min, max], all channels together, or, with ``all_channel=False``, each by itself."""
        super().__init__()
        self.min = min
        self.max = max
        self.all_channel = all_channel

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # as above
        if self.all_channel or img.ndim == 2:
            low, high = img.min(keepdims=True).ravel(), img.max(keepdims=True).ravel()
        else:
            # Over rows first: numpy is slow over all but three channels.
            low, high = img.min(axis=0).min(axis=0), img.max(axis=0).max(axis=0)
        low, high = low.astype(np.float64), high.astype(np.float64)
        spread = np.where(high > low, high - low, 1.0)
        return linear(img, centre=low, gain=(self.max - self.min) / spread, offset=self.min, dtype=np.float32)
