"""Owns what a transform is: a deterministic function of an image that also moves the points on it."""

from __future__ import annotations

from typing import Any

from dfserve.dataflow.imgaug.arrays import Image, Points
from dfserve.dataflow.imgaug.describe import Described


class BaseTransform(Described):
    """What every transform is an instance of, transforms of transforms included. To write one, subclass Transform."""

    def apply_image(self, img: Image) -> Image:
        """Return the transformed image. It may be a view of ``img``, ``img`` itself, or ``img`` changed in place."""
        raise NotImplementedError(f"{type(self).__name__} does not implement apply_image")

    def apply_coords(self, coords: Points) -> Points:
        """Return the points of the transformed image that show what ``coords`` showed.

        Args:
            coords: shape (N, 2), each row (x, y), and not changed. float32 stays float32, float64 float64; integers
                become float64.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement apply_coords")


class Transform(BaseTransform):
    """A deterministic transform: what a policy (an augmentor) chose for one image. The base of everybody's own.

    A subclass defines ``apply_image``, ``apply_coords`` if it can, and any ``apply_<something>`` of its own, which
    TransformList passes on. The same transform may be applied to several images (of the same height and width), from
    several threads.
    """

    def __init__(self) -> None:
        """Nothing to prepare."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("apply_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def refuse(_: Any) -> Any:
            raise NotImplementedError(f"{type(self).__name__} does not implement {name}")

        return refuse
