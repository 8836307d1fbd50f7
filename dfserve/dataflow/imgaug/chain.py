"""Owns augmentors one after the other: each one's policy sees the image as the ones before left it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dfserve.dataflow.imgaug.arrays import Image, check_image
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.describe import describe_list
from dfserve.dataflow.imgaug.transform import BaseTransform, TransformList
from dfserve.errors import ConfigError


class AugmentorList(ImageAugmentor):
    """Augmentors one after the other, as one."""

    def __init__(self, augmentors: Sequence[ImageAugmentor]) -> None:
        """Apply ``augmentors`` in their order.

        Raises:
            ConfigError: it is no list or tuple, or something in it is no augmentor.
        """
        if not isinstance(augmentors, (list, tuple)):
            raise ConfigError(f"augmentors is a {type(augmentors).__name__}: give a list of augmentors")
        for position, augmentor in enumerate(augmentors):
            if not hasattr(augmentor, "get_transform"):
                raise ConfigError(
                    f"augmentor {position} is a {type(augmentor).__name__}, which has no get_transform(): wrap a"
                    " function of the image as imgaug.MapImage(function)"
                )
        self.augmentors = augmentors
        super().__init__()

    def reset_state(self) -> None:
        super().reset_state()
        for augmentor in self.augmentors:
            augmentor.reset_state()

    def get_transform(self, img: Image) -> BaseTransform:
        """Return a TransformList. The policies run when it is first applied, because each needs the image before it.

        Raises:
            DatapointError: ``img`` is no image.
        """
        check_image(img)
        return Chain(self.augmentors, img)

    def __repr__(self) -> str:
        return describe_list("AugmentorList", self.augmentors)


class Chain(TransformList):
    """The transforms that augmentors choose for an image, chosen at the first use, whatever that is.

    Applying it to the image that it was made for, which comes first as a rule, runs the policies on the way, so that
    nothing is computed twice. If another image or points come first, they run over a copy of it.
    """

    def __init__(self, augmentors: Sequence[ImageAugmentor], img: Image) -> None:
        # No super().__init__(): ``tfms`` comes into being when the transforms are chosen.
        self._augmentors = augmentors
        self._img: Image | None = img  # None: they are chosen
        self._choosing = threading.Lock()

    def apply_image(self, img: Image) -> Image:
        if img is not None and img is self._img:
            with self._choosing:
                if img is self._img:
                    return self._choose(img)
        return super().apply_image(img)

    def __getattr__(self, name: str) -> Any:
        if name != "tfms":
            return super().__getattr__(name)
        with self._choosing:
            if self._img is not None:
                self._choose(self._img.copy())
        return vars(self)["tfms"]

    def _choose(self, img: Image) -> Image:
        tfms = []
        for augmentor in self._augmentors:
            tfm = augmentor.get_transform(img)
            img = tfm.apply_image(img)
            tfms.append(tfm)
        self.tfms, self._img = tfms, None
        return img

    def __reduce__(self) -> Any:
        return TransformList, (self.tfms,)

    def __repr__(self) -> str:
        return super().__repr__() if self._img is None else f"imgaug.TransformList(of {self._augmentors!r})"
