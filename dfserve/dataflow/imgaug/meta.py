"""Owns the augmentors made of functions or of other augmentors, which they apply at times, or in turns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, Points, check_image
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.chain import AugmentorList, Chain
from dfserve.dataflow.imgaug.describe import describe_list
from dfserve.dataflow.imgaug.flips import checked_probability
from dfserve.dataflow.imgaug.transform import BaseTransform, NoOpTransform, TransformFactory
from dfserve.errors import ConfigError

_NO_OP = NoOpTransform()  # it has no state, so one is enough
_NEAR_ONE = 1e-6  # by so much the sum of rounded probabilities may differ from 1


class MapImage(ImageAugmentor):
    """A function of the image, as an augmentor; it should give the same for the same image."""

    def __init__(self, func: Callable[[Image], Image], coord_func: Callable[[Points], Points] | None = None) -> None:
        """Apply ``func``.

        Args:
            func: takes and returns an image.
            coord_func: takes and returns points, shape (N, 2), each row (x, y). None: points cannot follow, and
                applying the transform to some raises NotImplementedError.
        """
        super().__init__()
        self.func = func
        self.coord_func = coord_func

    def get_transform(self, img: Image) -> BaseTransform:  # noqa: ARG002  # the same for every image
        if self.coord_func is None:
            return TransformFactory(self, apply_image=self.func)
        return TransformFactory(self, apply_image=self.func, apply_coords=self.coord_func)


class RandomApplyAug(ImageAugmentor):
    """An augmentor, or nothing, at random."""

    def __init__(self, aug: ImageAugmentor, prob: float) -> None:
        """Apply ``aug`` with probability ``prob``.

        Raises:
            ConfigError: ``prob`` is not in [0, 1], or ``aug`` is no augmentor.
        """
        self.prob = checked_probability(prob)
        (self.aug,) = _checked([aug])
        super().__init__()

    def reset_state(self) -> None:
        super().reset_state()
        self.aug.reset_state()

    def get_transform(self, img: Image) -> BaseTransform:
        return self.aug.get_transform(img) if self.rng.random_sample() < self.prob else _NO_OP


class RandomChooseAug(ImageAugmentor):
    """One of several augmentors, at random."""

    def __init__(self, aug_lists: Sequence[ImageAugmentor] | Sequence[tuple[ImageAugmentor, float]]) -> None:
        """Apply one of ``aug_lists``: augmentors, all as likely, or pairs (augmentor, probability).

        Raises:
            ConfigError: there is none; something in it is no augmentor; or the probabilities do not add up to 1.
        """
        weighted = bool(aug_lists) and all(isinstance(choice, (tuple, list)) for choice in aug_lists)
        self.prob = [float(choice[1]) if weighted else 1.0 / len(aug_lists) for choice in aug_lists]  # type: ignore[index]  # a pair, if weighted
        self.aug_lists = _checked([choice[0] if weighted else choice for choice in aug_lists])  # type: ignore[index]  # as above
        if not self.prob or min(self.prob) < 0 or not abs(sum(self.prob) - 1) <= _NEAR_ONE:
            raise ConfigError(
                f"RandomChooseAug has {len(self.prob)} augmentors with probabilities {self.prob}: give one at least,"
                " and probabilities that add up to 1"
            )
        edges = np.cumsum(self.prob)
        self._edges: list[float] = (edges / edges[-1]).tolist()
        super().__init__()

    def reset_state(self) -> None:
        super().reset_state()
        for augmentor in self.aug_lists:
            augmentor.reset_state()

    def get_transform(self, img: Image) -> BaseTransform:
        return self.aug_lists[bisect_right(self._edges, self.rng.random_sample())].get_transform(img)


class RandomOrderAug(AugmentorList):
    """Several augmentors, one after the other, in random order; each one's policy sees the image before it."""

    def __init__(self, aug_lists: Sequence[ImageAugmentor]) -> None:
        """Apply ``aug_lists``, all of them.

        Raises:
            ConfigError: it is no list or tuple, or something in it is no augmentor.
        """
        super().__init__(aug_lists)
        self.aug_lists = aug_lists

    def get_transform(self, img: Image) -> BaseTransform:
        """Draw the order, and return a TransformList as AugmentorList does."""
        check_image(img)
        return Chain([self.aug_lists[k] for k in self.rng.permutation(len(self.aug_lists))], img)

    def __repr__(self) -> str:
        return describe_list("RandomOrderAug", self.aug_lists)


def _checked(augmentors: list[Any]) -> list[ImageAugmentor]:
    return list(AugmentorList(augmentors).augmentors)  # which refuses what is none, and says what to do
