"""Owns the demo's default photographs: those that ship with scikit-image, cut into an ImageNet-shaped folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dfserve.errors import ConfigError

# Photographs in scikit-image's wheel, so that nothing is downloaded; each becomes a class. A name that a later version
# no longer ships is left out.
PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
CUTS = 40  # crops of each photograph: a few hundred in all
SMALLEST, LARGEST = 0.35, 0.9  # edges of a crop, as shares of the photograph's
WIDTH = 400  # pixels of a crop's width at most; ImageNet's photographs are around 400 x 350
SEED = 1  # the same crops each time
QUALITY = 90  # of the JPEG files, in percent


def cut_photos(folder: Path, cuts: int = CUTS) -> int:
    """Write ``folder/train/<photo>/<photo>_<number>.JPEG``, ``cuts`` of each photograph; return how many.

    Raises:
        ConfigError: scikit-image or OpenCV is missing, or none of the photographs is there.
    """
    cv2, source = _import_cv2(), _source()
    rng = np.random.RandomState(SEED)
    written = 0
    for photo in (source / name for name in PHOTOS):
        image = cv2.imread(str(photo), cv2.IMREAD_COLOR)
        if image is None:
            continue
        target = folder / "train" / photo.stem
        target.mkdir(parents=True)
        for number in range(cuts):
            crop = _cut(cv2, image, rng)
            cv2.imwrite(str(target / f"{photo.stem}_{number:03d}.JPEG"), crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        written += cuts
    if not written:
        raise ConfigError(f"none of the demo's photographs is in {source}; give a folder of your own: dfserve demo DIR")
    return written


def _cut(cv2: Any, image: Any, rng: np.random.RandomState) -> Any:
    height, width = (round(edge * rng.uniform(SMALLEST, LARGEST)) for edge in image.shape[:2])
    top = rng.randint(image.shape[0] - height)
    left = rng.randint(image.shape[1] - width)
    crop = image[top : top + height, left : left + width]
    if width <= WIDTH:
        return crop
    return cv2.resize(crop, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA)


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError:
        raise ConfigError("the demo needs OpenCV: pip install 'dfserve[demo]'") from None
    return cv2


def _source() -> Path:
    try:
        import skimage
    except ImportError:
        raise ConfigError(
            "the demo's photographs come with scikit-image: pip install 'dfserve[demo]', or give a folder of your own: "
            "dfserve demo DIR"
        ) from None
    return Path(str(skimage.__file__)).parent / "data"
