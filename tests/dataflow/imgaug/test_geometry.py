"""Warps and mirrors: what stays in its place, how far things go, and what is refused."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow import fix_rng_seed, imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.RandomState(0).randint(0, 256, (41, 41)).astype(np.uint8)


def angle_of(tfm: imgaug.WarpAffineTransform) -> float:
    return float(np.degrees(np.arctan2(tfm.mat[0, 1], tfm.mat[0, 0])))


def test_a_quarter_turn_about_the_middle_moves_whole_pixels() -> None:
    rotation = imgaug.Rotation(180, center_range=(0.5, 0.5), step_deg=90)
    rotation.rng = np.random.RandomState(0)
    seen = set()
    for _ in range(40):
        tfm = rotation.get_transform(IMAGE)
        quarters = round(angle_of(tfm) / 90) % 4
        assert np.array_equal(tfm.apply_image(IMAGE), np.rot90(IMAGE, quarters))
        seen.add(quarters)
    assert seen == {0, 1, 2, 3}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_point_that_an_image_is_turned_about_stays(h: int, w: int, seed: int) -> None:
    rotation = imgaug.Rotation(70, center_range=(0.25, 0.25))
    rotation.rng = np.random.RandomState(seed)
    tfm = rotation.get_transform(np.zeros((h, w), np.uint8))
    assert abs(angle_of(tfm)) <= 70
    center = np.array([[w / 4, h / 4]])
    assert tfm.apply_coords(center) == pytest.approx(center)


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_middle_of_a_sheared_scaled_and_turned_image_stays(h: int, w: int) -> None:
    affine = imgaug.Affine(scale=(0.5, 2), rotate_max_deg=90, shear=40)
    tfm = affine.get_transform(np.zeros((h, w), np.uint8))
    middle = np.array([[w / 2, h / 2]])
    assert tfm.apply_coords(middle) == pytest.approx(middle)


def test_shear_scale_and_shift_keep_to_their_ranges() -> None:
    img = np.zeros((30, 60), np.uint8)
    axes = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    lean, size, dx, dy = [], [], [], []
    fix_rng_seed(0)  # one run in a thousand would not come as close to the ends of the ranges
    for _ in range(300):
        start, x, y = imgaug.Affine(shear=20).get_transform(img).apply_coords(axes)
        assert x - start == pytest.approx([1, 0])
        lean.append(np.degrees(np.arctan2(*(y - start))))
        start, x, y = imgaug.Affine(scale=(0.5, 2)).get_transform(img).apply_coords(axes)
        size.append(x[0] - start[0])
        start, _, _ = imgaug.Affine(translate_frac=(0.5, 0.1)).get_transform(img).apply_coords(axes)
        dx.append(start[0])
        dy.append(start[1])
    assert (min(lean), max(lean)) == pytest.approx((-20, 20), abs=1)
    assert (min(size), max(size)) == pytest.approx((0.5, 2), abs=0.1)
    assert (min(dx), max(dx)) == pytest.approx((-30, 30), abs=2)
    assert (min(dy), max(dy)) == (-3, 3)
    assert all(float(d).is_integer() for d in dx)


def test_the_same_matrix_gives_tensorpacks_image(tensorpack: ModuleType) -> None:
    theirs = importlib.import_module(f"{tensorpack.__name__}.imgaug.transform").WarpAffineTransform
    for augmentor in (imgaug.Rotation(30), imgaug.Affine((0.5, 2), (0.1, 0.2), 30, 20), imgaug.Shift(0.2, 0.1)):
        tfm = augmentor.get_transform(IMAGE)
        their_tfm = theirs(tfm.mat, tfm.dsize, tfm.interp, tfm.borderMode, tfm.borderValue)
        assert np.array_equal(tfm.apply_image(IMAGE), their_tfm.apply_image(IMAGE))


def test_a_shift_moves_whole_pixels_and_repeats_the_edge() -> None:
    shift = imgaug.Shift(0.2)
    for _ in range(20):
        tfm = shift.get_transform(IMAGE)
        [[dx, dy]] = tfm.apply_coords(np.zeros((1, 2)))
        assert dy == 0
        assert abs(dx) <= 8
        assert np.array_equal(tfm.apply_image(IMAGE), IMAGE[:, np.clip(np.arange(41) - int(dx), 0, 40)])


@pytest.mark.parametrize("augmentor", [imgaug.Shift, imgaug.Rotation, imgaug.Affine])
def test_a_border_of_one_value_is_possible(augmentor: type) -> None:
    first = {imgaug.Shift: {"horiz_frac": 0.9}, imgaug.Rotation: {"max_deg": 180}}.get(augmentor, {"scale": (0.1, 0.2)})
    warp = augmentor(**first, border=cv2.BORDER_CONSTANT, border_value=7)
    white = np.full((30, 60, 3), 200, np.uint8)
    images = [warp.augment(white) for _ in range(20)]
    assert any((img == 7).all(axis=2).any() for img in images)
    assert all((img >= 7).all() for img in images)


@given(h=st.integers(1, 60), w=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_a_turned_image_is_cut_to_what_shows_only_image(h: int, w: int, seed: int) -> None:
    augmentor = imgaug.RotationAndCropValid(180)
    augmentor.rng = np.random.RandomState(seed)
    tfm = augmentor.get_transform(np.zeros((h, w), np.uint8))
    warp, crop = tfm.tfms
    x1, y1 = crop.x0 + crop.w, crop.y0 + crop.h
    corners = np.array([[crop.x0, crop.y0], [x1, crop.y0], [crop.x0, y1], [x1, y1]])
    back = imgaug.WarpAffineTransform(cv2.invertAffineTransform(warp.mat), (w, h)).apply_coords(corners)
    fits = (back > -1e-3).all() and (back < np.array([w, h]) + 1e-3).all()
    assert fits or 1 in (crop.w, crop.h)
    assert tfm.apply_image(np.zeros((h, w), np.uint8)).shape == (crop.h, crop.w)


@given(w=st.floats(1, 1000), h=st.floats(1, 1000), deg=st.floats(-400, 400))
def test_the_largest_upright_rectangle_is_within_a_pixel_of_tensorpacks(
    tensorpack: ModuleType, w: float, h: float, deg: float
) -> None:
    ours = imgaug.RotationAndCropValid.largest_rotated_rect(w, h, deg)
    assert ours == pytest.approx(tensorpack.imgaug.RotationAndCropValid.largest_rotated_rect(w, h, deg), abs=1)


@pytest.mark.parametrize("deg", [45, -45, 135, 45 + 1e-13, 45 - 1e-9, 45 + 1e-6])
def test_a_square_turned_by_an_eighth_is_no_special_case(deg: float) -> None:
    assert imgaug.RotationAndCropValid.largest_rotated_rect(1000, 1000, deg) == (707, 707)
    assert imgaug.RotationAndCropValid.largest_rotated_rect(0, 10, deg) == (0, 0)


def test_quarter_turns_cut_what_left_the_frame_and_no_more() -> None:
    img = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    augmentor = imgaug.RotationAndCropValid(180, step_deg=90)
    seen = {augmentor.augment(img).shape for _ in range(40)}
    assert seen == {(20, 30), (20, 20)}


@pytest.mark.parametrize("kind", [imgaug.Rotation, imgaug.RotationAndCropValid])
@pytest.mark.parametrize(("max_deg", "step"), [(90, 30), (180, 50), (180, 0), (180, -90)])
def test_steps_that_do_not_fit_are_refused(kind: type, max_deg: float, step: float) -> None:
    with pytest.raises(ConfigError, match=f"step_deg={step}"):
        kind(max_deg, step_deg=step)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (imgaug.Shift, {"horiz_frac": 1}, "horiz_frac=1"),
        (imgaug.Shift, {"vert_frac": -0.1}, "vert_frac=-0.1"),
        (imgaug.Affine, {"scale": 2}, "scale is 2"),
        (imgaug.Affine, {"scale": (2, 1)}, "scale is"),
        (imgaug.Affine, {"translate_frac": (0.1,)}, "translate_frac is"),
        (imgaug.Affine, {"translate_frac": 0.1}, "translate_frac is"),
        (imgaug.Affine, {"shear": -1}, "shear is -1"),
        (imgaug.Flip, {}, "exactly one"),
        (imgaug.Flip, {"horiz": True, "vert": True}, "two Flips"),
        (imgaug.Flip, {"horiz": True, "prob": 1.5}, "prob is 1.5"),
        (imgaug.Transpose, {"prob": -1}, "prob is -1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(kind: type, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("augmentor", [imgaug.Flip(horiz=True, prob=0.3), imgaug.Transpose(prob=0.3)], ids=repr)
def test_images_are_mirrored_as_often_as_said(augmentor: imgaug.ImageAugmentor) -> None:
    augmentor.rng = np.random.RandomState(0)
    count = sum(augmentor.augment(IMAGE) is not IMAGE for _ in range(1000))
    assert 250 < count < 350
