"""Owns the adapters for augmentors of other libraries: albumentations and what is called alike, and imgaug (IAA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, Points, as_points
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.seeded import SeededCall
from dfserve.dataflow.imgaug.seeds import draw_seed
from dfserve.dataflow.imgaug.transform import BaseTransform, Transform
from dfserve.errors import ConfigError


class Albumentations(ImageAugmentor):
    """An augmentor of the albumentations library, or anything that is called alike, as an augmentor of ours.

    Each transform holds a seed, so that it does the same to every image of the same shape. What has
    ``set_random_state`` (albumentations since 1.4.21) is given generators at that seed, each thread having a copy of
    the augmentor. For anything else the generators of the modules ``random`` and ``numpy.random`` are at that seed
    during the call, and go on afterwards where they were; one such call runs at a time, threads wait for each other.
    What draws from yet other generators (torch's) draws anew each time. ``imgaug.MapImage`` suits a function that draws
    nothing: it has none of that cost.

    Points cannot follow: libraries do not agree on where a pixel is.
    """

    def __init__(self, augmentor: Callable[..., Any]) -> None:
        """Wrap ``augmentor``.

        Args:
            augmentor: called as ``augmentor(image=img)``, or as ``augmentor(img)`` if it has no parameter ``image``. It
                returns the image, or a dict with the image under "image".

        Raises:
            ConfigError: it cannot be called.
        """
        super().__init__()
        if not callable(augmentor):
            raise ConfigError(f"Albumentations got a {type(augmentor).__name__}, which cannot be called with an image")
        self.augmentor = augmentor
        self._call = SeededCall(augmentor)

    def get_transform(self, img: Image) -> BaseTransform:  # noqa: ARG002  # it sees the image when it is applied
        return AlbumentationsTransform(self._call, draw_seed(self.rng))


class AlbumentationsTransform(Transform):
    """One draw of an albumentations-style augmentor."""

    def __init__(self, call: SeededCall, seed: int) -> None:
        """Call ``call`` with ``seed``."""
        self._call = call
        self._seed = seed

    def apply_image(self, img: Image) -> Image:
        return self._call(self._seed, img)


class IAAugmentor(ImageAugmentor):
    """An augmentor of the imgaug library (https://github.com/aleju/imgaug), for images of uint8.

    That library does not work with numpy 2.
    """

    def __init__(self, augmentor: Any) -> None:
        """Wrap ``augmentor``, an ``imgaug.augmenters.Augmenter``.

        Raises:
            ConfigError: it is none.
        """
        super().__init__()
        if not hasattr(augmentor, "to_deterministic"):
            raise ConfigError(f"IAAugmentor got a {type(augmentor).__name__}: give an imgaug.augmenters.Augmenter")
        self.augmentor = augmentor

    def get_transform(self, img: Image) -> BaseTransform:
        drawn = self.augmentor.to_deterministic()
        # Its own generator is the same in every forked process.
        drawn.seed_(draw_seed(self.rng) % (1 << 31), deterministic_too=True)
        return IAATransform(drawn, img.shape)


class IAATransform(Transform):
    """One draw of an augmentor of the imgaug library."""

    def __init__(self, aug: Any, img_shape: tuple[int, ...]) -> None:
        """Apply ``aug``, which is deterministic, to images of ``img_shape``."""
        self.aug = aug
        self.img_shape = img_shape

    def apply_image(self, img: Image) -> Image:
        augmented: Image = self.aug.augment_image(img)
        return augmented

    def apply_coords(self, coords: Points) -> Points:
        """Return the points where imgaug moves them, as exactly as it does that."""
        import imgaug

        points = as_points(coords)
        on_image = imgaug.KeypointsOnImage([imgaug.Keypoint(x=x, y=y) for x, y in points], shape=self.img_shape)
        moved = self.aug.augment_keypoints([on_image])[0].keypoints
        return np.array([(point.x, point.y) for point in moved], points.dtype).reshape(-1, 2)
