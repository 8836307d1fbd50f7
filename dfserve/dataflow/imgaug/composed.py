"""Owns the transforms that are made of functions, of other transforms, or of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dfserve.dataflow.imgaug.abstract import BaseTransform, Transform
from dfserve.dataflow.imgaug.arrays import Image, Points
from dfserve.dataflow.imgaug.describe import describe_list


class NoOpTransform(Transform):
    """A transform that returns whatever it gets, under every ``apply_<something>``."""

    def apply_image(self, img: Image) -> Image:
        return img

    def apply_coords(self, coords: Points) -> Points:
        return coords

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("apply_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return _unchanged


class PhotometricTransform(Transform):
    """A function of the pixels' values; points stay where they are."""

    def __init__(self, func: Callable[[Image], Image], name: object = None) -> None:
        """Transform images with ``func``; ``name`` is what it is printed as, by its ``str()``."""
        self._func = func
        self._name = name

    def apply_image(self, img: Image) -> Image:
        return self._func(img)

    def apply_coords(self, coords: Points) -> Points:
        return coords

    def __repr__(self) -> str:
        return f"imgaug.PhotometricTransform({'' if self._name is None else self._name})"


class TransformFactory(Transform):
    """A transform made of functions."""

    def __init__(self, name: object = None, **kwargs: Callable[[Any], Any]) -> None:
        """Make it of functions.

        Args:
            name: what it is printed as, by its ``str()``.
            kwargs: ``apply_image``, ``apply_coords``, or any other ``apply_<something>``, each a function.

        Raises:
            TypeError: a keyword does not begin with ``apply_``.
        """
        for key, func in kwargs.items():
            if not key.startswith("apply_"):
                raise TypeError(f"TransformFactory got {key!r}: it takes functions named apply_<something>")
            setattr(self, key, func)
        self._name = name

    def __repr__(self) -> str:
        return f"imgaug.TransformFactory({'' if self._name is None else self._name})"


class TransformList(BaseTransform):
    """Transforms one after the other. Lists of them add up with ``+``."""

    def __init__(self, tfms: Iterable[BaseTransform]) -> None:
        """Apply ``tfms`` in their order."""
        self.tfms = list(tfms)

    def apply_image(self, img: Image) -> Image:
        for tfm in self.tfms:
            img = tfm.apply_image(img)
        return img

    def apply_coords(self, coords: Points) -> Points:
        for tfm in self.tfms:
            coords = tfm.apply_coords(coords)
        return coords

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("apply_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def apply_each(x: Any) -> Any:
            for tfm in self.tfms:
                x = getattr(tfm, name)(x)
            return x

        return apply_each

    def __add__(self, other: BaseTransform) -> TransformList:
        return TransformList([*self.tfms, *_parts(other)])

    def __radd__(self, other: BaseTransform) -> TransformList:
        return TransformList([*_parts(other), *self.tfms])

    def __iadd__(self, other: BaseTransform) -> TransformList:
        self.tfms.extend(_parts(other))
        return self

    def __repr__(self) -> str:
        return describe_list("TransformList", self.tfms)


def _unchanged(x: Any) -> Any:
    return x


def _parts(tfm: BaseTransform) -> list[BaseTransform]:
    return tfm.tfms if isinstance(tfm, TransformList) else [tfm]
