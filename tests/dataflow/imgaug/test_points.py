"""Points follow their image: what lies under a point lies under the transformed point of the transformed image.

Images are ramps: the value of a pixel is where its centre is. So each pixel of a transformed image says which point of
the source it shows, and the law is checked at every pixel, not at one mark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dfserve.dataflow import imgaug

# How far an interpolated value may be off, in pixels of the source. In uint8, cv2's resize rounds its weights and then
# the value; in warping it works with 1/32 of a pixel.
ERROR = {"uint8": 0.75, "float32": 0.1}
NEAREST = 0.5  # what is picked instead of interpolated lies up to half a pixel beside

KINDS: dict[str, Callable[[int, int], imgaug.ImageAugmentor]] = {
    "Resize": lambda h, w: imgaug.Resize((w + 3, max(1, h - 2))),
    "Resize smaller": lambda h, w: imgaug.Resize(((h + 2) // 3, (w + 1) // 2)),
    "Resize, picking pixels": lambda h, w: imgaug.Resize((2 * h, 3 * w), interp=cv2.INTER_NEAREST_EXACT),
    "ResizeShortestEdge": lambda h, w: imgaug.ResizeShortestEdge(17),
    "RandomResize": lambda h, w: imgaug.RandomResize((0.5, 2.0), (0.5, 2.0), aspect_ratio_thres=0.5),
    "RandomResize to pixels": lambda h, w: imgaug.RandomResize((10, 40), aspect_ratio_thres=0),
    "Flip": lambda h, w: imgaug.Flip(horiz=True, prob=1),
    "Flip vertically": lambda h, w: imgaug.Flip(vert=True, prob=1),
    "Flip or not": lambda h, w: imgaug.Flip(vert=True),
    "Transpose": lambda h, w: imgaug.Transpose(prob=1),
    "Identity": lambda h, w: imgaug.Identity(),
    "RandomCrop": lambda h, w: imgaug.RandomCrop(((h + 1) // 2, (w + 2) // 3)),
    "CenterCrop": lambda h, w: imgaug.CenterCrop(((h + 1) // 2, (w + 2) // 3)),
    "RandomCropRandomShape": lambda h, w: imgaug.RandomCropRandomShape(1, 1, wmax=30),
    "GoogleNetRandomCropAndResize": lambda h, w: imgaug.GoogleNetRandomCropAndResize(target_shape=32),
    "Rotation": lambda h, w: imgaug.Rotation(180, center_range=(0.2, 0.8)),
    "Rotation by quarters": lambda h, w: imgaug.Rotation(180, step_deg=90),
    "RotationAndCropValid": lambda h, w: imgaug.RotationAndCropValid(90),
    "Affine": lambda h, w: imgaug.Affine((0.5, 1.5), (0.2, 0.3), 45, 20),
    "Affine shear": lambda h, w: imgaug.Affine(shear=30),
    "Shift": lambda h, w: imgaug.Shift(0.5, 0.5),
    "AugmentorList": lambda h, w: imgaug.AugmentorList(
        [
            imgaug.Rotation(30),
            imgaug.Transpose(),
            imgaug.RandomResize((0.7, 1.5), aspect_ratio_thres=0),
            imgaug.AugmentorList([imgaug.RandomCropRandomShape(1, 1), imgaug.Flip(horiz=True)]),
        ]
    ),
}


def ramps(h: int, w: int, dtype: str, channels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Two images, of which one says x and one says y of each pixel: of its centre, or with uint8 of its corner."""
    y, x = np.mgrid[:h, :w] + (0.0 if dtype == "uint8" else 0.5)
    return as_channels(x.astype(dtype), channels), as_channels(y.astype(dtype), channels)


def as_channels(grey: np.ndarray, channels: int | None) -> np.ndarray:
    return grey if channels is None else np.repeat(grey[:, :, None], channels, axis=2)


def last_channel(img: np.ndarray) -> np.ndarray:
    return img if img.ndim == 2 else img[:, :, -1]


def shows_no_border(tfm: Any, h: int, w: int, stretch: float) -> np.ndarray:
    """Which pixels of the transformed image show only the source's interior: at an edge, what is shown is made up."""
    interior = np.zeros((h, w), np.float32)
    interior[1:-1, 1:-1] = 1
    shown = tfm.apply_image(interior)
    rows, columns = np.mgrid[: shown.shape[0], : shown.shape[1]] + 0.5
    # A part that is enlarged ends half a pixel of its own before its edge; beyond, cv2 repeats that.
    from_edge = np.minimum.reduce([rows, columns, shown.shape[0] - rows, shown.shape[1] - columns])
    return (shown > 0.9999) & (from_edge >= 0.5 * stretch)


def check_that_points_follow(tfm: Any, h: int, w: int, dtype: str, channels: int | None, error: float) -> None:
    of_x, of_y = ramps(h, w, dtype, channels)
    shown_x, shown_y = tfm.apply_image(of_x), tfm.apply_image(of_y)
    assert shown_x.shape == shown_y.shape
    assert shown_x.dtype == dtype
    assert shown_x.shape[2:] == of_x.shape[2:]
    axes = tfm.apply_coords(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    stretch = np.linalg.norm(axes[1:] - axes[0], 2)
    inside = shows_no_border(tfm, h, w, stretch)
    corner = 0.5 if dtype == "uint8" else 0.0
    source = np.stack([last_channel(shown_x)[inside], last_channel(shown_y)[inside]], axis=1) + np.float64(corner)
    target = np.argwhere(inside)[:, ::-1] + 0.5
    distance = np.linalg.norm(tfm.apply_coords(source) - target, axis=1)
    assert distance.max(initial=0) <= error * np.sqrt(2) * stretch + 1e-3


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 60),
    w=st.integers(1, 60),
    dtype=st.sampled_from(["uint8", "float32"]),
    channels=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
@example(h=40, w=60, dtype="float32", channels=3, seed=1)
@example(h=60, w=40, dtype="uint8", channels=None, seed=2)
@example(h=31, w=50, dtype="float32", channels=1, seed=3)
def test_points_follow_their_image(kind: str, h: int, w: int, dtype: str, channels: int | None, seed: int) -> None:
    augmentor = KINDS[kind](h, w)
    for each in getattr(augmentor, "augmentors", [augmentor]):
        each.rng = np.random.RandomState(seed)
    tfm = augmentor.get_transform(ramps(h, w, dtype, channels)[0])
    error = NEAREST if "picking" in kind else ERROR[dtype]
    twice = 2 if "AugmentorList" in kind else 1  # it interpolates twice
    check_that_points_follow(tfm, h, w, dtype, channels, twice * error)


def marked(h: int, w: int, row: int, column: int) -> np.ndarray:
    img = np.zeros((h, w, 3), np.uint8)
    img[row, column] = 255
    return img


@pytest.mark.parametrize(
    "augmentor",
    [
        imgaug.Flip(horiz=True, prob=1),
        imgaug.Flip(vert=True, prob=1),
        imgaug.Transpose(prob=1),
        imgaug.Rotation(180, step_deg=90, center_range=(0.5, 0.5)),
        imgaug.Affine(translate_frac=(0.1, 0.1)),
        imgaug.Shift(0.1, 0.1),
    ],
    ids=repr,
)
def test_a_marked_pixel_is_where_its_point_went(augmentor: imgaug.ImageAugmentor) -> None:
    for row, column in [(20, 15), (15, 20), (22, 22)]:
        img = marked(40, 41, row, column) if not isinstance(augmentor, imgaug.Rotation) else marked(41, 41, row, column)
        tfm = augmentor.get_transform(img)
        found = np.argwhere(tfm.apply_image(img)[:, :, 0] == 255)
        assert found.shape == (1, 2)
        [[x, y]] = tfm.apply_coords(np.array([[column + 0.5, row + 0.5]]))
        assert (x, y) == pytest.approx((found[0, 1] + 0.5, found[0, 0] + 0.5), abs=1e-9)


def test_a_box_fills_the_mirrored_image_as_it_filled_the_image() -> None:
    img = np.zeros((10, 20), np.uint8)
    img[2:5, 4:9] = 1
    tfm = imgaug.Flip(horiz=True, prob=1).get_transform(img)
    (x1, y0), (x0, y1) = tfm.apply_coords(np.array([[4.0, 2.0], [9.0, 5.0]]))
    assert tfm.apply_image(img)[int(y0) : int(y1), int(x0) : int(x1)].all()
    assert tfm.apply_image(img).sum() == (y1 - y0) * (x1 - x0)
