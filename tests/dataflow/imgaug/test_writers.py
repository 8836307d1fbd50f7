"""Which augmentors might write into their image: those that run other people's code, however deep inside."""

from __future__ import annotations

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.dataflow.imgaug.writers import may_write


class Own(imgaug.PhotometricAugmentor):
    """An augmentor as people write them."""

    def _augment(self, img: np.ndarray, params: object) -> np.ndarray:
        img[:] = 0
        return img


class OwnBrightness(imgaug.Brightness):
    """One of dfserve's, changed."""


class OwnFiller(imgaug.BackgroundFiller):
    """A background as people write them."""


FOREIGN = [
    Own(),
    OwnBrightness(3),
    imgaug.MapImage(np.negative),
    imgaug.Albumentations(np.negative),
    imgaug.CenterPaste(9, OwnFiller()),
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_other_peoples_code_is_found_wherever_it_is(foreign: imgaug.ImageAugmentor) -> None:
    clean = imgaug.Flip(horiz=True)
    assert may_write(foreign)
    assert may_write(imgaug.AugmentorList([clean, foreign]))
    assert may_write(imgaug.RandomOrderAug([clean, imgaug.RandomApplyAug(foreign, 0.5)]))
    assert may_write(imgaug.AugmentorList([imgaug.RandomChooseAug([(clean, 0.9), (foreign, 0.1)])]))


def test_dfserves_own_do_not_write() -> None:
    parts = [imgaug.Resize(4), imgaug.Brightness(3), imgaug.RandomCutout(1, 1), imgaug.RandomPaste(9), imgaug.Hue()]
    choice = imgaug.RandomChooseAug(parts)
    assert not may_write(imgaug.AugmentorList([choice, imgaug.RandomApplyAug(imgaug.RandomOrderAug(parts), 0.5)]))
