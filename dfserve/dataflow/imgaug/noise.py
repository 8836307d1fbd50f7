"""Owns the augmentors that add noise. A transform of theirs holds a seed, so that it adds the same noise each time."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels, working_dtype
from dfserve.dataflow.imgaug.seeds import draw_seed, generator
from dfserve.errors import ConfigError, DatapointError

_UINT8 = np.dtype(np.uint8)


class GaussianNoise(PhotometricAugmentor):
    """The image with noise from N(0, sigma^2) added to every value."""

    def __init__(self, sigma: float = 1, clip: bool = True) -> None:
        """Add noise.

        Args:
            sigma: in levels: for images in [0, 1] give a fraction.
            clip: clip to [0, 255] even where the dtype does not.
        """
        super().__init__()
        self.sigma = sigma
        self.clip = clip

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # the same for every image
        return draw_seed(self.rng)

    def _augment(self, img: Image, params: Any) -> Image:
        values = generator(params).standard_normal(img.shape, dtype=working_dtype(img.dtype))
        values *= self.sigma
        values += img
        return as_pixels(values, img.dtype, self.clip)


class SaltPepperNoise(PhotometricAugmentor):
    """The image with random values of it, in any channel, set to 255 (salt) or 0 (pepper)."""

    def __init__(self, white_prob: float = 0.05, black_prob: float = 0.05) -> None:
        """Set each value to 255 with probability ``white_prob``, and to 0 with ``black_prob``.

        Raises:
            ConfigError: one is negative, or their sum is above 1.
        """
        super().__init__()
        if min(white_prob, black_prob) < 0 or white_prob + black_prob > 1:
            raise ConfigError(
                f"SaltPepperNoise(white_prob={white_prob!r}, black_prob={black_prob!r}): probabilities are not"
                " negative, and these two not more than 1 together"
            )
        self.white_prob = white_prob
        self.black_prob = black_prob

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return draw_seed(self.rng)

    def _augment(self, img: Image, params: Any) -> Image:
        drawn = generator(params).random(img.shape, dtype=np.float32)
        noisy: Image = img.copy()
        white = as_pixels(np.array(255.0), img.dtype)  # in int8, 127
        np.putmask(noisy, drawn >= 1 - self.white_prob, white)
        np.putmask(noisy, drawn < self.black_prob, np.zeros((), img.dtype))
        return noisy


class JpegNoise(PhotometricAugmentor):
    """The image with the traces of a JPEG compression of random quality."""

    def __init__(self, quality_range: tuple[int, int] = (40, 100)) -> None:
        """Compress grey or colour images, in the order blue, green, red if it is to look as cameras' do.

        Args:
            quality_range: draw the quality from [quality_range[0], quality_range[1]); 0 is worst, 100 best.

        Raises:
            ConfigError: the range is empty, or goes outside of 0 to 100.
        """
        super().__init__()
        low, high = quality_range
        if not 0 <= low < high <= 101:
            raise ConfigError(f"JpegNoise(quality_range={quality_range!r}): give (low, high), 0 <= low < high <= 101")
        self.quality_range = quality_range

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return int(self.rng.randint(*self.quality_range))

    def _augment(self, img: Image, params: Any) -> Image:
        if img.ndim == 3 and img.shape[2] not in (1, 3):
            raise DatapointError(f"JPEG has images of 1 or 3 channels, this one has shape {img.shape}")
        pixels = img if img.dtype == np.uint8 else as_pixels(img.astype(working_dtype(img.dtype)), _UINT8)
        _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, params])
        colour = img.ndim == 3 and img.shape[2] == 3
        decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
        noisy: Image = decoded.reshape(img.shape).astype(img.dtype, copy=False)
        return noisy
