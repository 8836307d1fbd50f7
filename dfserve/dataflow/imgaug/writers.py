"""Owns which augmentors might write into the image that they are given. Those of this package do not."""

from __future__ import annotations

from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.chain import AugmentorList
from dfserve.dataflow.imgaug.external import Albumentations, IAAugmentor
from dfserve.dataflow.imgaug.meta import MapImage, RandomApplyAug, RandomChooseAug
from dfserve.dataflow.imgaug.paste import CenterPaste

_HERE = __name__.rpartition(".")[0] + "."


def may_write(augmentor: ImageAugmentor) -> bool:
    """Return whether ``augmentor`` runs code that is not of this package, and so might change an image in place."""
    if not _is_ours(augmentor) or isinstance(augmentor, (MapImage, Albumentations, IAAugmentor)):
        return True
    if isinstance(augmentor, CenterPaste):
        return not _is_ours(augmentor.background_filler)
    if isinstance(augmentor, RandomApplyAug):
        return may_write(augmentor.aug)
    if isinstance(augmentor, RandomChooseAug):
        return any(map(may_write, augmentor.aug_lists))
    return isinstance(augmentor, AugmentorList) and any(map(may_write, augmentor.augmentors))


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith(_HERE)
