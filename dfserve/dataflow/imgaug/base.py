"""Owns what an augmentor is: a random policy that chooses a deterministic transform for an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, Points, check_image
from dfserve.dataflow.imgaug.describe import Described
from dfserve.dataflow.imgaug.transform import BaseTransform, PhotometricTransform, TransformFactory
from dfserve.dataflow.rng import get_rng
from dfserve.errors import DfserveError

_NOBODY = 0  # no process has this pid


class ImageAugmentor(Described):
    """A policy: ``get_transform(img)`` draws from ``self.rng`` and returns a Transform. The base of everybody's own.

    Images are uint8, or floating point in [0, 1] or [0, 255], of shape (h, w) or (h, w, channels).

    An augmentor may be used by many threads at once. Its copies, pickled ones and those in forked children draw from
    streams of their own, even without ``reset_state()``.

    A subclass may also be written in tensorpack's older style, and define instead of ``get_transform`` any of
    ``_get_augment_params(img)`` (draws the parameters; default: None), ``_augment(img, params)``,
    ``_augment_coords(coords, params)`` (default: points stay), or ``_augment_return_params(img)``.
    """

    _rng: np.random.RandomState | None = None
    _rng_pid = _NOBODY  # the process that _rng is for

    def __init__(self) -> None:
        """Make it ready to use: calls ``reset_state()``."""
        self.reset_state()

    @property
    def rng(self) -> np.random.RandomState:
        """The generator: another stream in every process and after every reset.

        Raises:
            DfserveError: neither the constructor of this class nor ``reset_state()`` ran.
        """
        rng = self._rng
        if rng is None or self._rng_pid != os.getpid():
            if self._rng_pid == _NOBODY:
                raise DfserveError(
                    f"{type(self).__name__} draws random numbers but was not reset: call super().__init__() in its"
                    " constructor, or reset_state() before using it"
                )
            self.rng = rng = get_rng(self)
        return rng

    @rng.setter
    def rng(self, rng: np.random.RandomState) -> None:
        self._rng, self._rng_pid = rng, os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        # The generator stays: whoever gets the copy must not draw the same numbers again.
        return {name: value for name, value in vars(self).items() if name != "_rng"}

    def reset_state(self) -> None:
        """Start a new stream of random numbers. What owns other augmentors resets them too.

        The DataFlows that augment call it in the process that iterates.
        """
        self.rng = get_rng(self)

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
        """Draw float32 numbers evenly from [low, high), or from [0, low): one, or an array of shape ``size``."""
        if high is None:
            low, high = 0.0, low
        drawn = self.rng.uniform(low, high, size)
        return np.float32(drawn) if size is None else drawn.astype(np.float32)

    def get_transform(self, img: Image) -> BaseTransform:
        """Choose what to do with images of this one's height and width, and return it. All that is random is here.

        A subclass defines it, or has it done by the methods of the older style.
        """
        params = self._draw_params(img)
        if self._defines("_augment"):
            return TransformFactory(
                self,
                apply_image=_WithParams(self._augment, params),
                apply_coords=_WithParams(self._old_coords, params),
            )
        if isinstance(params, BaseTransform):
            return params
        raise NotImplementedError(f"{type(self).__name__} defines neither get_transform nor _augment")

    def augment(self, img: Image) -> Image:
        """Return the image, transformed. It may share memory with ``img``, or be ``img`` changed in place.

        Raises:
            DatapointError: ``img`` is no image, or not one for this augmentor.
        """
        check_image(img)
        return self.get_transform(img).apply_image(img)

    def augment_return_params(self, d: Image) -> tuple[Image, BaseTransform]:
        """Return the transformed image and the transform; tensorpack's older name for the two steps."""
        transform = self.get_transform(d)
        return transform.apply_image(d), transform

    def augment_with_params(self, d: Image, params: BaseTransform) -> Image:
        """Do the same to another image: ``params.apply_image(d)``."""
        return params.apply_image(d)

    def augment_coords(self, coords: Points, params: BaseTransform) -> Points:
        """Do the same to points: ``params.apply_coords(coords)``."""
        return params.apply_coords(coords)

    # The older style. Old augmentors define these, and those that hold other augmentors call these of them.

    def _get_augment_params(self, img: Image) -> Any:
        return self.get_transform(img) if self._defines("get_transform") else None

    def _augment(self, img: Image, params: Any) -> Image:
        augmented: Image = params.apply_image(img)
        return augmented

    def _augment_coords(self, coords: Points, params: Any) -> Points:
        return params.apply_coords(coords) if isinstance(params, BaseTransform) else coords

    def _augment_return_params(self, img: Image) -> tuple[Image, Any]:
        params = self._get_augment_params(img)
        return self._augment(img, params), params

    def _draw_params(self, img: Image) -> Any:
        if self._defines("_augment_return_params"):
            # It augments as well, perhaps in place; apply_image() will do it once more, to the image itself.
            return self._augment_return_params(img.copy())[1]
        old = getattr(self, "get_augment_params", None)  # public in tensorpack's first versions
        return self._get_augment_params(img) if old is None else old(img)

    def _old_coords(self, coords: Points, params: Any) -> Points:
        if not self._defines("_augment_coords") and self._defines("augment_coords"):
            return self.augment_coords(coords, params)
        return self._augment_coords(coords, params)

    def _defines(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(ImageAugmentor, name)


Augmentor = ImageAugmentor


class PhotometricAugmentor(ImageAugmentor):
    """A policy that changes the values of pixels and moves none. A subclass defines ``_augment(img, params)``."""

    def get_transform(self, img: Image) -> BaseTransform:
        return PhotometricTransform(_WithParams(self._augment, self._get_augment_params(img)), self)

    def _get_augment_params(self, img: Image) -> Any:
        """Draw and return what ``_augment`` needs; the default draws nothing and returns None."""

    def _augment(self, img: Image, params: Any) -> Image:
        """Return the image with other values, or ``img`` changed in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define _augment")


class _WithParams:
    """A method with its second argument, whatever that is called. Unlike a lambda it can be pickled."""

    def __init__(self, method: Callable[[Any, Any], Any], params: Any) -> None:
        self._method = method
        self._params = params

    def __call__(self, x: Any) -> Any:
        return self._method(x, self._params)
