"""What holds for every augmentor that changes pixels in place: dtypes, shapes, points, repetition, and no traces."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfserve.dataflow import imgaug
from dfserve.errors import DatapointError

PCA = ([55.46, 4.794, 1.148], [[-0.57, 0.72, 0.40], [-0.58, 0.0, -0.81], [-0.58, -0.69, 0.42]])

# Each with images of any number of channels.
ANY = {
    "Brightness": lambda: imgaug.Brightness(80),
    "Brightness, unclipped": lambda: imgaug.Brightness(80, clip=False),
    "BrightnessScale": lambda: imgaug.BrightnessScale((0.3, 3)),
    "Contrast": lambda: imgaug.Contrast((0.3, 3)),
    "Contrast, unclipped": lambda: imgaug.Contrast((0.3, 3), clip=False),
    "Gamma": lambda: imgaug.Gamma(),
    "Clip": lambda: imgaug.Clip(20.5, 300),
    "GaussianBlur": lambda: imgaug.GaussianBlur(5, (0, 2), symmetric=False),
    "GaussianNoise": lambda: imgaug.GaussianNoise(20),
    "SaltPepperNoise": lambda: imgaug.SaltPepperNoise(0.2, 0.3),
    "RandomCutout": lambda: imgaug.RandomCutout((1, 4), 3, fill=70.4),
    "RandomOrderAug": lambda: imgaug.RandomOrderAug([imgaug.GaussianNoise(9), imgaug.Gamma(), imgaug.Brightness(50)]),
    "RandomChooseAug": lambda: imgaug.RandomChooseAug([(imgaug.GaussianNoise(9), 0.6), (imgaug.Gamma(), 0.4)]),
    "RandomApplyAug": lambda: imgaug.RandomApplyAug(imgaug.GaussianNoise(9), 0.5),
}
# Each with grey and colour images.
GREY = {"JpegNoise": lambda: imgaug.JpegNoise((1, 60))}
# Each with colour images alone.
COLOUR = {
    "Contrast around grey": lambda: imgaug.Contrast((0.3, 3), rgb=True),
    "Hue": lambda: imgaug.Hue(),
    "Hue, BGR": lambda: imgaug.Hue((-90, 90), rgb=False),
    "Saturation": lambda: imgaug.Saturation(),
    "Saturation, unclipped": lambda: imgaug.Saturation(rgb=False, clip=False),
    "Lighting": lambda: imgaug.Lighting(0.5, *PCA),
    "Grayscale": lambda: imgaug.Grayscale(keepshape=True),
    "ColorSpace": lambda: imgaug.ColorSpace(cv2.COLOR_BGR2YUV),
}
KEEPING = ANY | GREY | COLOUR
# Each with what it makes of the dtype.
CONVERTING = {
    "MeanVarianceNormalize": (lambda: imgaug.MeanVarianceNormalize(), np.float32),
    "MeanVarianceNormalize, each channel": (lambda: imgaug.MeanVarianceNormalize(all_channel=False), np.float32),
    "MinMaxNormalize": (lambda: imgaug.MinMaxNormalize(-1, 1), np.float32),
    "MinMaxNormalize, each channel": (lambda: imgaug.MinMaxNormalize(0, 1, all_channel=False), np.float32),
    "ToUint8": (lambda: imgaug.ToUint8(), np.uint8),
    "ToFloat32": (lambda: imgaug.ToFloat32(), np.float32),
}
CHANNELS = dict.fromkeys(ANY, (None, 1, 3, 4, 5)) | dict.fromkeys(GREY, (None, 1, 3)) | dict.fromkeys(COLOUR, (3,))
MAKERS: dict[str, Callable[[], imgaug.ImageAugmentor]] = KEEPING | {
    name: make for name, (make, _) in CONVERTING.items()
}
DTYPES = ("uint8", "float32", "float64", "float16", "uint16", "int16", "int32")
POINTS = np.array([[0.0, 0.0], [3.25, 2.5]], np.float32)


def image(h: int, w: int, channels: int | None, dtype: str, layout: str, seed: int) -> np.ndarray:
    """A read-only image of values from 0 to 255, laid out in memory as a pipeline may leave it."""
    shape = (h, w) if channels is None else (h, w, channels)
    made = np.random.default_rng(seed).uniform(0, 256, shape).astype(np.uint8).astype(dtype)
    if layout == "mirrored":
        made = made[:, ::-1]
    elif layout == "cropped":
        made = np.pad(made, [(1, 1), (2, 1)] + [(0, 0)] * (made.ndim - 2))[1:-1, 2:-1]
    elif layout == "by column":
        made = np.asfortranarray(made)
    made.flags.writeable = False
    return made


LAYOUTS = st.sampled_from(["plain", "mirrored", "cropped", "by column"])
SIDE, SEED = st.integers(4, 12), st.integers(0, 1 << 30)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15)
@given(st.data())
def test_a_draw_does_the_same_each_time_and_leaves_image_and_points_as_they_were(
    name: str, data: st.DataObject
) -> None:
    channels = data.draw(st.sampled_from(CHANNELS.get(name, (None, 1, 3, 5))))
    dtype = data.draw(st.sampled_from(DTYPES))
    img = image(data.draw(SIDE), data.draw(SIDE), channels, dtype, data.draw(LAYOUTS), data.draw(SEED))
    before = img.copy()
    transform = MAKERS[name]().get_transform(img)
    once = transform.apply_image(img)
    np.testing.assert_array_equal(img, before)
    assert once.shape == img.shape
    assert once.dtype == (CONVERTING[name][1] if name in CONVERTING else img.dtype)
    np.testing.assert_array_equal(transform.apply_image(before), once)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(transform)).apply_image(img), once)
    np.testing.assert_array_equal(transform.apply_coords(POINTS), POINTS)


@pytest.mark.parametrize("name", ["Brightness", "BrightnessScale", "Contrast", "Gamma", "Lighting", "Saturation"])
@settings(max_examples=15)
@given(st.data())
def test_an_image_of_uint8_becomes_what_floating_point_gives_rounded(name: str, data: st.DataObject) -> None:
    img = image(data.draw(SIDE), data.draw(SIDE), 3, "uint8", data.draw(LAYOUTS), data.draw(SEED))
    transform = MAKERS[name]().get_transform(img)
    exact = transform.apply_image(img.astype(np.float64))
    grey = 0.5 if name == "Saturation" else 0  # which is rounded on the way
    assert np.abs(transform.apply_image(img) - exact).max() < 0.52 + grey


@pytest.mark.parametrize("name", [name for name in MAKERS if 1 in CHANNELS.get(name, (1,))])
def test_the_axis_of_a_single_channel_stays_and_changes_no_value(name: str) -> None:
    flat = image(9, 8, None, "uint8", "plain", 3)
    transform = MAKERS[name]().get_transform(flat)
    np.testing.assert_array_equal(transform.apply_image(flat[:, :, None])[:, :, 0], transform.apply_image(flat))


@pytest.mark.parametrize("name", COLOUR)
@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 1), (5, 5, 2)])
def test_what_needs_colours_says_so_when_there_are_none(name: str, shape: tuple[int, ...]) -> None:
    if name == "Contrast around grey" and shape != (5, 5, 2):
        return  # a grey image is its own grey
    with pytest.raises(DatapointError, match=r"shape \(5, 5"):
        MAKERS[name]().augment(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", MAKERS)
def test_no_augmentor_draws_twice_alike(name: str) -> None:
    img = image(30, 30, 3, "uint8", "plain", 3)
    fixed = {"Clip", "Grayscale", "ColorSpace", *CONVERTING}
    augmentor = MAKERS[name]()
    drawn = {augmentor.augment(img).tobytes() for _ in range(30)}
    assert (len(drawn) == 1) == (name in fixed)


@pytest.mark.parametrize("name", ["Brightness", "Hue", "GaussianNoise", "MinMaxNormalize"])
def test_a_mask_of_truth_values_has_no_brightness(name: str) -> None:
    with pytest.raises(DatapointError, match="dtype bool"):
        MAKERS[name]().augment(np.ones((5, 5, 3), bool))
