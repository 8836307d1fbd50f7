"""Owns the names of image augmentation: random policies (augmentors), and the deterministic transforms they choose.

``augmentor.get_transform(img)`` draws the random numbers and returns a Transform, whose ``apply_image`` and
``apply_coords`` give the same result every time, for the image and for what belongs to it: masks, key points, corners
of boxes. ``augmentor.augment(img)`` does both steps for an image alone.

Coordinates are continuous. A point is (x, y), in pixels from the image's upper left corner, x to the right and y down.
The pixel in row i and column j is the square from (j, i) to (j + 1, i + 1), with its centre at (j + 0.5, i + 0.5); an
image of h x w pixels fills the rectangle from (0, 0) to (w, h). So mirroring maps x to w - x, resizing multiplies, and
a box that ends with pixel j ends at j + 1. Every transform here keeps to that: what lies under a point lies under the
transformed point of the transformed image, up to the resolution of the interpolation. (Resizing with
``cv2.INTER_NEAREST`` picks up to half a pixel of the source beside.) Add 0.5 to make positions of pixels points.

Needs OpenCV: ``pip install 'dfserve[producer]'``.
"""

from __future__ import annotations

try:
    import cv2 as _  # noqa: F401  # so that its absence is explained once, here
except ImportError as error:
    raise ImportError("augmenting images needs OpenCV: pip install 'dfserve[producer]'") from error

from dfserve.dataflow.imgaug.base import Augmentor, ImageAugmentor, PhotometricAugmentor
from dfserve.dataflow.imgaug.blur import GaussianBlur
from dfserve.dataflow.imgaug.brightness import Brightness, BrightnessScale, Clip, Contrast, Gamma
from dfserve.dataflow.imgaug.chain import AugmentorList
from dfserve.dataflow.imgaug.colour import Hue, Lighting, Saturation
from dfserve.dataflow.imgaug.convert import ColorSpace, Grayscale, ToFloat32, ToUint8
from dfserve.dataflow.imgaug.crops import CenterCrop, GoogleNetRandomCropAndResize, RandomCrop, RandomCropRandomShape
from dfserve.dataflow.imgaug.cutout import RandomCutout
from dfserve.dataflow.imgaug.external import Albumentations, IAAugmentor
from dfserve.dataflow.imgaug.flips import Flip, Identity, Transpose
from dfserve.dataflow.imgaug.geometry import Affine, Rotation, RotationAndCropValid, Shift
from dfserve.dataflow.imgaug.meta import MapImage, RandomApplyAug, RandomChooseAug, RandomOrderAug
from dfserve.dataflow.imgaug.noise import GaussianNoise, JpegNoise, SaltPepperNoise
from dfserve.dataflow.imgaug.normalize import MeanVarianceNormalize, MinMaxNormalize
from dfserve.dataflow.imgaug.paste import BackgroundFiller, CenterPaste, ConstantBackgroundFiller, RandomPaste
from dfserve.dataflow.imgaug.resize import RandomResize, Resize, ResizeShortestEdge
from dfserve.dataflow.imgaug.transform import (
    CropTransform,
    FlipTransform,
    NoOpTransform,
    PhotometricTransform,
    ResizeTransform,
    Transform,
    TransformFactory,
    TransformList,
    TransposeTransform,
    WarpAffineTransform,
)

__all__ = [
    "Affine",
    "Albumentations",
    "Augmentor",
    "AugmentorList",
    "BackgroundFiller",
    "Brightness",
    "BrightnessScale",
    "CenterCrop",
    "CenterPaste",
    "Clip",
    "ColorSpace",
    "ConstantBackgroundFiller",
    "Contrast",
    "CropTransform",
    "Flip",
    "FlipTransform",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "GoogleNetRandomCropAndResize",
    "Grayscale",
    "Hue",
    "IAAugmentor",
    "Identity",
    "ImageAugmentor",
    "JpegNoise",
    "Lighting",
    "MapImage",
    "MeanVarianceNormalize",
    "MinMaxNormalize",
    "NoOpTransform",
    "PhotometricAugmentor",
    "PhotometricTransform",
    "RandomApplyAug",
    "RandomChooseAug",
    "RandomCrop",
    "RandomCropRandomShape",
    "RandomCutout",
    "RandomOrderAug",
    "RandomPaste",
    "RandomResize",
    "Resize",
    "ResizeShortestEdge",
    "ResizeTransform",
    "Rotation",
    "RotationAndCropValid",
    "SaltPepperNoise",
    "Saturation",
    "Shift",
    "ToFloat32",
    "ToUint8",
    "Transform",
    "TransformFactory",
    "TransformList",
    "Transpose",
    "TransposeTransform",
    "WarpAffineTransform",
]
