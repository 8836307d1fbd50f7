"""Owns the augmentors that warp the image: Shift, Rotation, RotationAndCropValid, Affine."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from dfserve.dataflow.imgaug.arrays import Image, as_range
from dfserve.dataflow.imgaug.base import ImageAugmentor
from dfserve.dataflow.imgaug.transform import BaseTransform, CropTransform, TransformList, WarpAffineTransform
from dfserve.errors import ConfigError


class Shift(ImageAugmentor):
    """The image moved by a random whole number of pixels."""

    def __init__(
        self,
        horiz_frac: float = 0,
        vert_frac: float = 0,
        border: int = cv2.BORDER_REPLICATE,
        border_value: Any = 0,
    ) -> None:
        """Move.

        Args:
            horiz_frac: how far at most to the left or right, as a share of the width.
            vert_frac: how far at most up or down, as a share of the height.
            border: what cv2 puts where the image was; the default repeats its edge.
            border_value: the value for ``cv2.BORDER_CONSTANT``: a number for every channel, or one for each.

        Raises:
            ConfigError: a share is not in [0, 1).
        """
        super().__init__()
        if not (0 <= horiz_frac < 1 and 0 <= vert_frac < 1):
            raise ConfigError(f"horiz_frac={horiz_frac}, vert_frac={vert_frac}: a share is from 0 to below 1")
        self.horiz_frac = horiz_frac
        self.vert_frac = vert_frac
        self.border = border
        self.border_value = border_value

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        dx, dy = _draw_shift(self.rng, self.horiz_frac * w, self.vert_frac * h)
        mat = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
        return WarpAffineTransform(mat, (w, h), borderMode=self.border, borderValue=self.border_value)


class Rotation(ImageAugmentor):
    """The image turned by a random angle about a random point; what leaves the frame is lost."""

    def __init__(
        self,
        max_deg: float,
        center_range: tuple[float, float] = (0, 1),
        interp: int = cv2.INTER_LINEAR,
        border: int = cv2.BORDER_REPLICATE,
        step_deg: float | None = None,
        border_value: Any = 0,
    ) -> None:
        """Turn.

        Args:
            max_deg: the greatest angle in degrees, to either side.
            center_range: (low, high): where the point lies, as shares of width and height, each drawn by itself.
            interp: cv2's interpolation method.
            border: what cv2 puts where the image was; the default repeats its edge.
            step_deg: if given, angles are multiples of it; needs ``max_deg=180``, and must divide 180.
            border_value: the value for ``cv2.BORDER_CONSTANT``: a number for every channel, or one for each.

        Raises:
            ConfigError: ``step_deg`` does not fit.
        """
        super().__init__()
        _check_step(max_deg, step_deg)
        self.max_deg = max_deg
        self.center_range = center_range
        self.interp = interp
        self.border = border
        self.step_deg = step_deg
        self.border_value = border_value

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        low, high = self.center_range
        x, y, turn = self.rng.random_sample(3).tolist()
        center = (w * (low + (high - low) * x), h * (low + (high - low) * y))
        mat = _rotation(center, _angle(turn, self.max_deg, self.step_deg))
        return WarpAffineTransform(mat, (w, h), self.interp, self.border, self.border_value)


class RotationAndCropValid(ImageAugmentor):
    """The image turned by a random angle about its middle, and the largest part cut out that shows only image."""

    def __init__(self, max_deg: float, interp: int = cv2.INTER_LINEAR, step_deg: float | None = None) -> None:
        """Turn and crop; the size of the result depends on the angle.

        Args:
            max_deg: the greatest angle in degrees, to either side.
            interp: cv2's interpolation method.
            step_deg: if given, angles are multiples of it; needs ``max_deg=180``, and must divide 180.

        Raises:
            ConfigError: ``step_deg`` does not fit.
        """
        super().__init__()
        _check_step(max_deg, step_deg)
        self.max_deg = max_deg
        self.interp = interp
        self.step_deg = step_deg

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        deg = _angle(self.rng.random_sample(), self.max_deg, self.step_deg)
        mat = _rotation((w / 2, h / 2), deg)
        valid_w, valid_h = _largest_upright(w, h, deg)
        x0, crop_w = _whole_pixels(w, valid_w)
        y0, crop_h = _whole_pixels(h, valid_h)
        # The border is seen only where the image is so small that not a single whole pixel is valid.
        warp = WarpAffineTransform(mat, (w, h), self.interp, cv2.BORDER_REPLICATE)
        return TransformList([warp, CropTransform(y0, x0, crop_h, crop_w)])

    @staticmethod
    def largest_rotated_rect(w: float, h: float, angle: float) -> tuple[int, int]:
        """Return (w, h), rounded, of the largest upright rectangle inside one of ``w`` x ``h`` turned by ``angle``.

        Args:
            w: width in pixels.
            h: height in pixels.
            angle: in degrees.
        """
        if w <= 0 or h <= 0:
            return 0, 0
        valid_w, valid_h = _largest_upright(w, h, angle)
        return round(valid_w), round(valid_h)


class Affine(ImageAugmentor):
    """The image sheared, scaled and turned about its middle and then moved, each by a random amount."""

    def __init__(
        self,
        scale: tuple[float, float] | None = None,
        translate_frac: tuple[float, float] | None = None,
        rotate_max_deg: float = 0.0,
        shear: float = 0.0,
        interp: int = cv2.INTER_LINEAR,
        border: int = cv2.BORDER_REPLICATE,
        border_value: Any = 0,
    ) -> None:
        """Warp.

        Args:
            scale: (low, high) of the factor by which things grow. Default: they do not.
            translate_frac: how far at most the image moves to either side and up or down, as shares of its width and
                height; by whole pixels. Default: it does not.
            rotate_max_deg: the greatest angle in degrees, to either side.
            shear: the greatest angle of shear in degrees, to either side: vertical lines lean by so much.
            interp: cv2's interpolation method.
            border: what cv2 puts where the image was; the default repeats its edge.
            border_value: the value for ``cv2.BORDER_CONSTANT``: a number for every channel, or one for each.

        Raises:
            ConfigError: ``scale`` or ``translate_frac`` is no pair, ``scale`` not positive and in order, or ``shear``
                negative.
        """
        super().__init__()
        if translate_frac is not None and (np.shape(translate_frac) != (2,) or min(translate_frac) < 0):
            raise ConfigError(f"translate_frac is {translate_frac!r}: give two shares, of the width and of the height")
        if shear < 0:
            raise ConfigError(f"shear is {shear}: give the greatest angle in degrees, which is not negative")
        self.scale = None if scale is None else as_range(scale, "scale")
        self.translate_frac = translate_frac
        self.rotate_max_deg = rotate_max_deg
        self.shear = shear
        self.interp = interp
        self.border = border
        self.border_value = border_value

    def get_transform(self, img: Image) -> BaseTransform:
        h, w = img.shape[:2]
        size, turn, lean = self.rng.random_sample(3).tolist()
        low, high = self.scale or (1.0, 1.0)
        mat = _rotation((w / 2, h / 2), _angle(turn, self.rotate_max_deg), low + (high - low) * size)
        if self.shear:
            _shear_first(mat, math.radians(_angle(lean, self.shear)), (w / 2, h / 2))
        if self.translate_frac is not None:
            mat[:, 2] += _draw_shift(self.rng, self.translate_frac[0] * w, self.translate_frac[1] * h)
        return WarpAffineTransform(mat, (w, h), self.interp, self.border, self.border_value)


def _rotation(center: tuple[float, float], deg: float, scale: float = 1.0) -> Any:
    """Return cv2's matrix that turns about ``center``, a point in our coordinates, half a pixel beside cv2's."""
    return cv2.getRotationMatrix2D((center[0] - 0.5, center[1] - 0.5), deg, scale)


def _shear_first(mat: Any, radians: float, center: tuple[float, float]) -> None:
    """Let ``mat``, which keeps ``center`` in its place, lean vertical lines by ``radians`` first; it still keeps it."""
    middle = np.array(center) - 0.5
    mat[:, :2] = mat[:, :2] @ np.array([[1.0, math.sin(radians)], [0.0, math.cos(radians)]])
    mat[:, 2] = middle - mat[:, :2] @ middle


def _angle(share: float, max_deg: float, step_deg: float | None = None) -> float:
    """Return the angle that lies at ``share``, in [0, 1), of the way from ``-max_deg`` to ``max_deg``."""
    deg = (2 * share - 1) * max_deg
    return deg // step_deg * step_deg if step_deg else deg


def _draw_shift(rng: np.random.RandomState, max_dx: float, max_dy: float) -> tuple[int, int]:
    x, y = rng.random_sample(2).tolist()
    return round((2 * x - 1) * max_dx), round((2 * y - 1) * max_dy)


def _check_step(max_deg: float, step_deg: float | None) -> None:
    if step_deg is not None and (max_deg != 180 or step_deg <= 0 or 180 % step_deg):
        raise ConfigError(f"step_deg={step_deg} with max_deg={max_deg}: it needs max_deg=180 and must divide 180")


def _largest_upright(w: float, h: float, deg: float) -> tuple[float, float]:
    """Return (width, height) of the upright rectangle of greatest area inside one of ``w`` x ``h`` turned by ``deg``.

    One of a x b fits if its corners do: a·cos + b·sin <= w and a·sin + b·cos <= h. Under one of the conditions alone,
    a·b is greatest where its two terms are equal; that is the answer if the other condition holds there, and else both
    hold with equality.
    """
    sin, cos = abs(math.sin(math.radians(deg))), abs(math.cos(math.radians(deg)))
    long, short = max(w, h), min(w, h)
    # The two answers meet there; the allowance keeps the second away from 0 / 0, a square turned by 45 degrees.
    if short <= 2 * sin * cos * long * (1 + 1e-9):
        along_sin, along_cos = short / (2 * sin), short / (2 * cos)
        return (along_sin, along_cos) if h <= w else (along_cos, along_sin)
    cos_double = cos * cos - sin * sin
    return (w * cos - h * sin) / cos_double, (h * cos - w * sin) / cos_double


def _whole_pixels(side: int, valid: float) -> tuple[int, int]:
    """Return where the whole pixels begin that lie in the middle ``valid`` of ``side``, and how many (at least 1)."""
    # The allowance is for angles that are nearly a quarter turn: 1 must not become 0.9999999.
    begin = max(0, math.ceil((side - valid) / 2 - 1e-6))
    count = side - 2 * begin
    return (begin, count) if count > 0 else ((side - 1) // 2, 1)
