"""Owns the transforms that move pixels: they resize, crop, warp or mirror; and, under tensorpack's names, all others.

The package's docstring explains the coordinates that they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dfserve.dataflow.imgaug.abstract import BaseTransform, Transform
from dfserve.dataflow.imgaug.arrays import Image, Points, as_points, keep_channels
from dfserve.dataflow.imgaug.composed import NoOpTransform, PhotometricTransform, TransformFactory, TransformList
from dfserve.errors import DatapointError

__all__ = [
    "BaseTransform",
    "CropTransform",
    "FlipTransform",
    "NoOpTransform",
    "PhotometricTransform",
    "ResizeTransform",
    "Transform",
    "TransformFactory",
    "TransformList",
    "TransposeTransform",
    "WarpAffineTransform",
]


class ResizeTransform(Transform):
    """The image in another size; points scale with it."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int) -> None:
        """Resize from (h, w) to (new_h, new_w).

        Args:
            h: height of the images that it will get, in pixels.
            w: width of them.
            new_h: height of the result.
            new_w: width of the result.
            interp: cv2's interpolation method. All of them keep the image's edges where they are, except
                ``cv2.INTER_NEAREST``, which picks up to half a source pixel beside (``INTER_NEAREST_EXACT`` does not).
        """
        self.h = h
        self.w = w
        self.new_h = new_h
        self.new_w = new_w
        self.interp = interp

    def apply_image(self, img: Image) -> Image:
        """Return the resized image; ``img`` itself where it has that size already.

        Raises:
            DatapointError: ``img`` has another size than (h, w), or a dtype or number of channels that cv2 refuses.
        """
        if img.shape[:2] != (self.h, self.w):
            raise DatapointError(
                f"this transform is for images of {self.h} x {self.w} pixels (h x w), this one has shape {img.shape}"
            )
        if self.new_h == self.h and self.new_w == self.w:
            return img
        _refuse_strange_dtype(img)
        try:
            resized = cv2.resize(img, (self.new_w, self.new_h), interpolation=self.interp)
        except cv2.error as error:
            raise DatapointError(f"cannot resize to {self.new_h} x {self.new_w}: {_why(img, error)}") from error
        return keep_channels(img, resized)

    def apply_coords(self, coords: Points) -> Points:
        points = as_points(coords)
        scaled: Points = points * np.array([self.new_w / self.w, self.new_h / self.h], points.dtype)
        return scaled


class CropTransform(Transform):
    """A part of the image, as a view of it."""

    def __init__(self, y0: int, x0: int, h: int, w: int) -> None:
        """Keep ``h`` rows from row ``y0`` on and ``w`` columns from column ``x0`` on."""
        self.y0 = y0
        self.x0 = x0
        self.h = h
        self.w = w

    def apply_image(self, img: Image) -> Image:
        """Return the part.

        Raises:
            DatapointError: it is empty, or not all of it lies in the image.
        """
        y0, x0, h, w = self.y0, self.x0, self.h, self.w
        y1, x1 = y0 + h, x0 + w
        if y0 < 0 or x0 < 0 or h < 1 or w < 1 or y1 > img.shape[0] or x1 > img.shape[1]:
            raise DatapointError(
                f"cannot crop rows {y0} to {y1} and columns {x0} to {x1} from an image of shape {img.shape}:"
                " resize it first, or crop less"
            )
        return img[y0:y1, x0:x1]

    def apply_coords(self, coords: Points) -> Points:
        points = as_points(coords)
        shifted: Points = points - np.array([self.x0, self.y0], points.dtype)
        return shifted


class WarpAffineTransform(Transform):
    """An affine map of the plane: rotation, scale, shear, shift, or several of them."""

    def __init__(
        self,
        mat: npt.NDArray[Any],
        dsize: Sequence[int],
        interp: int = cv2.INTER_LINEAR,
        borderMode: int = cv2.BORDER_CONSTANT,  # noqa: N803  # tensorpack's name, which is cv2's
        borderValue: float | Sequence[float] = 0,  # noqa: N803  # as above
    ) -> None:
        """Map by ``mat``.

        Args:
            mat: shape (2, 3), as ``cv2.warpAffine`` takes it: over positions of pixels, where the centre of the first
                one is (0, 0). ``apply_coords`` takes account of that half pixel.
            dsize: (w, h) of the result.
            interp: cv2's interpolation method; with ``cv2.WARP_INVERSE_MAP``, ``mat`` maps the result to the source.
            borderMode: what cv2 puts where the source has nothing.
            borderValue: the value for ``cv2.BORDER_CONSTANT``: one number for every channel, or up to four.
        """
        self.mat = mat
        self.dsize = dsize
        self.interp = interp
        self.borderMode = borderMode
        self.borderValue = borderValue

    def apply_image(self, img: Image) -> Image:
        """Return the warped image.

        Raises:
            DatapointError: cv2 refuses the image: its dtype, its channels, or (OpenCV 4) a side above 32766 pixels.
        """
        value = self.borderValue
        # cv2 takes a single number for the first channel's and fills the others with 0.
        fill = (float(value),) * 4 if isinstance(value, (int, float, np.number)) else tuple(map(float, value))
        _refuse_strange_dtype(img)
        try:
            warped = cv2.warpAffine(
                img, self.mat, self.dsize, flags=self.interp, borderMode=self.borderMode, borderValue=fill
            )
        except cv2.error as error:
            raise DatapointError(f"cannot warp: {_why(img, error)}") from error
        return keep_channels(img, warped)

    def apply_coords(self, coords: Points) -> Points:
        points = as_points(coords)
        mat: npt.NDArray[Any] = np.asarray(self.mat, np.float64)
        if self.interp & cv2.WARP_INVERSE_MAP:
            mat = cv2.invertAffineTransform(mat)
        moved: Points = (points - 0.5) @ mat[:, :2].T + (mat[:, 2] + 0.5)
        return moved.astype(points.dtype, copy=False)


class FlipTransform(Transform):
    """The image mirrored: left to right, or top to bottom."""

    def __init__(self, h: int, w: int, horiz: bool = True) -> None:
        """Mirror images of ``h`` x ``w`` pixels left to right, or with ``horiz=False`` top to bottom."""
        self.h = h
        self.w = w
        self.horiz = horiz

    def apply_image(self, img: Image) -> Image:
        if _is_strange_to_cv2(img):
            return np.ascontiguousarray(np.flip(img, 1 if self.horiz else 0))
        # 35 times faster than copying a mirrored view, which whoever sends or batches the image would have to do.
        return keep_channels(img, cv2.flip(img, 1 if self.horiz else 0))

    def apply_coords(self, coords: Points) -> Points:
        mirrored = np.array(as_points(coords))
        axis = 0 if self.horiz else 1
        mirrored[:, axis] = (self.w if self.horiz else self.h) - mirrored[:, axis]
        return mirrored


class TransposeTransform(Transform):
    """The image mirrored at its main diagonal: x becomes y."""

    def apply_image(self, img: Image) -> Image:
        if _is_strange_to_cv2(img):
            return np.ascontiguousarray(img.swapaxes(0, 1))
        return keep_channels(img, cv2.transpose(img))

    def apply_coords(self, coords: Points) -> Points:
        turned: Points = as_points(coords)[:, ::-1].copy()
        return turned


# What every OpenCV from 4.7 on takes as it is. Others it refuses, cuts to 32 bits (int64) or misreads (big-endian).
_CV2_DTYPES = frozenset(map(np.dtype, ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")))


def _refuse_strange_dtype(img: Image) -> None:
    if img.dtype not in _CV2_DTYPES:
        raise DatapointError(
            f"cv2 has no images of dtype {img.dtype}: convert this one, e.g. img.astype(np.uint8) or np.float32"
        )


def _is_strange_to_cv2(img: Image) -> bool:
    # What more than four channels are to cv2 depends on its version and on the function.
    return img.dtype not in _CV2_DTYPES or (img.ndim == 3 and img.shape[2] > 4)


def _why(img: Image, error: cv2.error) -> str:
    return (
        f"cv2 refuses an image of shape {img.shape} and dtype {img.dtype} ({str(error).strip()}); convert, crop or"
        " resize it first: uint8 and float32 with up to 4 channels and 32766 pixels a side always work"
    )


def __getattr__(name: str) -> Any:
    if name == "TransformAugmentorBase":  # the base, in tensorpack's first versions, of augmentors that draw transforms
        from dfserve.dataflow.imgaug.base import ImageAugmentor

        return ImageAugmentor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
