"""Owns the augmentors that keep every pixel's value, and mirror the image or leave it: Flip, Transpose, Identity."""

from __future__ import annotations

from dfserve.dataflow.imgaug.arrays import Image
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.transform import BaseTransform, FlipTransform, NoOpTransform, TransposeTransform
from dfserve.errors import ConfigError

_NO_OP = NoOpTransform()  # it has no state, so one is enough
_TRANSPOSE = TransposeTransform()  # as above


class Flip(ImageAugmentor):
    """The image mirrored, or not, at random."""

    def __init__(self, horiz: bool = False, vert: bool = False, prob: float = 0.5) -> None:
        """Mirror left to right with ``horiz``, or top to bottom with ``vert``, with probability ``prob``.

        Raises:
            ConfigError: both or none of them is true, or ``prob`` is not in [0, 1].
        """
        super().__init__()
        if bool(horiz) == bool(vert):
            raise ConfigError(
                f"Flip(horiz={horiz!r}, vert={vert!r}): exactly one must be true; use two Flips to do both"
            )
        self.horiz = horiz
        self.vert = vert
        self.prob = checked_probability(prob)

    def get_transform(self, img: Image) -> BaseTransform:
        if self.rng.random_sample() < self.prob:
            return FlipTransform(img.shape[0], img.shape[1], self.horiz)
        return _NO_OP


class Transpose(ImageAugmentor):
    """The image with x and y exchanged, or not, at random."""

    def __init__(self, prob: float = 0.5) -> None:
        """Exchange them with probability ``prob``.

        Raises:
            ConfigError: ``prob`` is not in [0, 1].
        """
        super().__init__()
        self.prob = checked_probability(prob)

    def get_transform(self, img: Image) -> BaseTransform:  # noqa: ARG002  # the same for every image
        return _TRANSPOSE if self.rng.random_sample() < self.prob else _NO_OP


class Identity(ImageAugmentor):
    """The image as it is."""

    def get_transform(self, img: Image) -> BaseTransform:  # noqa: ARG002  # as above
        return _NO_OP


def checked_probability(prob: float) -> float:
    """Return ``prob``; raise a ConfigError unless it is in [0, 1]."""
    if not 0 <= prob <= 1:
        raise ConfigError(f"prob is {prob!r}: a probability is from 0 to 1")
    return prob
