"""Owns the augmentors that make an image brighter, darker, flatter or steeper, whatever its colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import LEVELS, as_pixels, channel_means, linear, look_up, need_colour, working_dtype
from dfserve.errors import ConfigError

_GREY_OF_RGB = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, which is what cv2.COLOR_RGB2GRAY weighs with


class Brightness(PhotometricAugmentor):
    """The image with a random number added."""

    def __init__(self, delta: float, clip: bool = True) -> None:
        """Add a number from [-delta, delta].

        Args:
            delta: positive, in levels: for images in [0, 1] give a fraction.
            clip: clip to [0, 255] even where the dtype does not.

        Raises:
            ConfigError: ``delta`` is not positive.
        """
        super().__init__()
        if not delta > 0:
            raise ConfigError(f"Brightness(delta={delta!r}): delta is the largest change, a positive number")
        self.delta = delta
        self.clip = clip

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # the same for every image
        return self._rand_range(-self.delta, self.delta)

    def _augment(self, img: Image, params: Any) -> Image:
        return linear(img, offset=params, clip=self.clip)


class BrightnessScale(PhotometricAugmentor):
    """The image multiplied by a random number."""

    def __init__(self, range: tuple[float, float], clip: bool = True) -> None:
        """Multiply by a number from [range[0], range[1]); ``clip`` as in Brightness."""
        super().__init__()
        self.range = range
        self.clip = clip

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return self._rand_range(*self.range)

    def _augment(self, img: Image, params: Any) -> Image:
        return linear(img, gain=params, clip=self.clip)


class Contrast(PhotometricAugmentor):
    """The image with its values moved from, or to, their mean: ``(x - mean) * factor + mean``."""

    def __init__(self, factor_range: tuple[float, float], rgb: bool | None = None, clip: bool = True) -> None:
        """Draw the factor from [factor_range[0], factor_range[1]).

        Args:
            factor_range: below 1 the image gets flatter, above 1 steeper.
            rgb: None: each channel has its own mean. True or False: all have the mean of the grey image, the channels
                being red, green, blue (True) or blue, green, red (False).
            clip: as in Brightness.
        """
        super().__init__()
        self.factor_range = factor_range
        self.rgb = rgb
        self.clip = clip

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return self._rand_range(*self.factor_range)

    def _augment(self, img: Image, params: Any) -> Image:
        mean: Any = channel_means(img)
        if self.rgb is not None and len(mean) > 1:
            need_colour(img, self)
            # The mean of a weighted sum is the weighted sum of the means.
            mean = float((mean if self.rgb else mean[::-1]) @ _GREY_OF_RGB)
        return linear(img, centre=mean, gain=params, offset=mean, clip=self.clip)


class Gamma(PhotometricAugmentor):
    """The image on another tone curve: ``255 * (x / 255) ** (1 / (1 + gamma))``, brighter where gamma is positive."""

    def __init__(self, range: tuple[float, float] = (-0.5, 0.5)) -> None:
        """Draw gamma from [range[0], range[1]). Values are taken as from 0 to 255, and clipped to that before.

        Raises:
            ConfigError: gamma might be -1 or less.
        """
        super().__init__()
        if not min(range) > -1:
            raise ConfigError(f"Gamma(range={range!r}): gamma is above -1")
        self.range = range

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return self._rand_range(*self.range)

    def _augment(self, img: Image, params: Any) -> Image:
        exponent = 1.0 / (1.0 + float(params))
        if img.dtype == np.uint8:
            return look_up(img, as_pixels((LEVELS / 255.0) ** exponent * 255.0, img.dtype))
        values = img.astype(working_dtype(img.dtype))
        np.clip(values, 0, 255, out=values)
        values /= 255.0
        np.power(values, exponent, out=values)
        values *= 255.0
        return as_pixels(values, img.dtype)


class Clip(PhotometricAugmentor):
    """The image with its values clipped; the dtype stays."""

    def __init__(self, min: float = 0, max: float = 255) -> None:
        """Clip to [min, max]; for images of integers, to the integers in it.

        Raises:
            ConfigError: ``min`` is above ``max``.
        """
        super().__init__()
        if min > max:
            raise ConfigError(f"Clip(min={min!r}, max={max!r}): min is above max")
        self.min = min
        self.max = max

    def _augment(self, img: Image, params: Any) -> Image:  # noqa: ARG002  # nothing is random here
        if img.dtype.kind not in "iu":
            return np.clip(img, self.min, self.max).astype(img.dtype, copy=False)
        # numpy refuses bounds that the dtype does not have, and would compute with others in floating point.
        info = np.iinfo(img.dtype)
        return np.clip(img, _within(info, self.min, math.ceil), _within(info, self.max, math.floor))


def _within(info: np.iinfo[Any], bound: float, whole: Callable[[float], int]) -> int:
    if bound <= info.min:
        return int(info.min)
    return int(info.max) if bound >= info.max else whole(bound)
