"""Owns the augmentors that change an image's colours: hue, saturation, and the lighting of a scene."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import PhotometricAugmentor
from dfserve.dataflow.imgaug.pixels import as_pixels, in_cv_dtype, linear, need_colour
from dfserve.errors import ConfigError

_HUES = 180  # cv2 has the hues of 8-bit images from 0 to 179, two degrees each, and those of float32 ones in degrees


class Hue(PhotometricAugmentor):
    """The image with its hues turned by a random angle."""

    def __init__(self, range: tuple[float, float] = (0, 180), rgb: bool = True) -> None:
        """Turn by an angle from [range[0], range[1]).

        Args:
            range: in units of two degrees, for every dtype: 180 is once around, so all there is is in [-90, 90].
            rgb: the channels are red, green, blue; else blue, green, red.
        """
        super().__init__()
        self.range = range
        self.rgb = bool(rgb)

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # the same for every image
        return self._rand_range(*self.range)

    def _augment(self, img: Image, params: Any) -> Image:
        need_colour(img, self)
        hsv = cv2.cvtColor(in_cv_dtype(img), cv2.COLOR_RGB2HSV if self.rgb else cv2.COLOR_BGR2HSV)
        hue: Any = cv2.extractChannel(hsv, 0)
        if hue.dtype == np.uint8:
            table = np.rint(np.arange(256) + float(params)) % _HUES
            hue = cv2.LUT(hue, table.astype(np.uint8).reshape(256, 1))
        else:
            hue += 2 * float(params) % 360  # np.mod() over the image would take longer than all the rest
            np.subtract(hue, 360, out=hue, where=hue >= 360)
        cv2.insertChannel(hue, hsv, 0)
        turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB if self.rgb else cv2.COLOR_HSV2BGR)
        return turned if turned.dtype == img.dtype else as_pixels(turned, img.dtype)


class Saturation(PhotometricAugmentor):
    """The image with its colours moved from, or to, grey: ``x * v + grey * (1 - v)``, as in fb.resnet.torch."""

    def __init__(self, alpha: float = 0.4, rgb: bool = True, clip: bool = True) -> None:
        """Draw v from [1 - alpha, 1 + alpha).

        Args:
            alpha: in [0, 1).
            rgb: the channels are red, green, blue; else blue, green, red.
            clip: clip to [0, 255] even where the dtype does not.

        Raises:
            ConfigError: ``alpha`` is outside [0, 1).
        """
        super().__init__()
        if not 0 <= alpha < 1:
            raise ConfigError(f"Saturation(alpha={alpha!r}): alpha is from 0 to below 1")
        self.alpha = alpha
        self.rgb = bool(rgb)
        self.clip = clip

    def _get_augment_params(self, img: Image) -> Any:  # noqa: ARG002  # as above
        return 1 + self._rand_range(-self.alpha, self.alpha)

    def _augment(self, img: Image, params: Any) -> Image:
        need_colour(img, self)
        source = in_cv_dtype(img)
        grey = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY if self.rgb else cv2.COLOR_BGR2GRAY)
        v = float(params)
        # In images of uint8, cv2 rounds and saturates.
        mixed = cv2.addWeighted(source, v, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 1 - v, 0)
        return mixed if mixed.dtype == np.uint8 else as_pixels(mixed, img.dtype, self.clip)


class Lighting(PhotometricAugmentor):
    """The image in other light: a random colour added, along the principal components of a data set's colours.

    After Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012.
    """

    def __init__(self, std: float, eigval: npt.ArrayLike, eigvec: npt.ArrayLike, clip: bool = True) -> None:
        """Add ``eigvec @ (a * eigval)``, with the three numbers of a drawn from N(0, std^2).

        Args:
            std: 0.1 is usual.
            eigval: shape (3,): the eigenvalues of the covariance of the channels.
            eigvec: shape (3, 3): each column an eigenvector, its rows in the order of the image's channels.
            clip: clip to [0, 255] even where the dtype does not.

        Raises:
            ConfigError: the shapes are others.
        """
        super().__init__()
        self.std = std
        self.eigval = np.asarray(eigval, np.float32)
        self.eigvec = np.asarray(eigvec, np.float32)
        self.clip = clip
        if self.eigval.shape != (3,) or self.eigvec.shape != (3, 3):
            raise ConfigError(
                f"Lighting needs 3 eigenvalues and a matrix of 3 x 3 with an eigenvector in each column, not shapes"
                f" {self.eigval.shape} and {self.eigvec.shape}"
            )

    def _get_augment_params(self, img: Image) -> Any:
        need_colour(img, self)
        return (self.rng.randn(3) * self.std).astype(np.float32)

    def _augment(self, img: Image, params: Any) -> Image:
        need_colour(img, self)
        return linear(img, offset=self.eigvec @ (params * self.eigval), clip=self.clip)
