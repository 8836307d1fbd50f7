"""Noise: of the right kind and amount, rounded, and in the image's own shape."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import ConfigError, DatapointError

GREY = np.full((200, 150, 3), 128, np.uint8)


def test_gaussian_noise_has_its_deviation_and_no_bias() -> None:
    noisy = imgaug.GaussianNoise(10).augment(GREY.astype(np.float32))
    assert noisy.std() == pytest.approx(10, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    rounded = imgaug.GaussianNoise(10).augment(GREY)
    assert rounded.std() == pytest.approx(10, rel=0.02)
    assert rounded.mean() == pytest.approx(128, abs=0.2)  # tensorpack cuts off, so its images get darker by a half


def test_gaussian_noise_saturates_and_leaves_floating_point_alone_if_told_so() -> None:
    noisy = imgaug.GaussianNoise(300).augment(GREY)
    assert (noisy == 0).mean() == pytest.approx((noisy == 255).mean(), abs=0.05)
    assert (noisy == 0).mean() > 0.2
    unclipped = imgaug.GaussianNoise(300, clip=False).augment(GREY.astype(np.float32))
    assert unclipped.min() < -300
    assert unclipped.max() > 500


def test_salt_and_pepper_are_as_many_as_said_and_all_else_stays() -> None:
    img = np.random.default_rng(0).integers(1, 255, (200, 150, 3), np.uint8)
    noisy = imgaug.SaltPepperNoise(0.1, 0.3).augment(img)
    assert (noisy == 255).mean() == pytest.approx(0.1, abs=0.01)
    assert (noisy == 0).mean() == pytest.approx(0.3, abs=0.01)
    untouched = (noisy != 0) & (noisy != 255)
    np.testing.assert_array_equal(noisy[untouched], img[untouched])


def test_salt_alone_pepper_alone_and_neither() -> None:
    assert (imgaug.SaltPepperNoise(1, 0).augment(GREY) == 255).all()
    assert (imgaug.SaltPepperNoise(0, 1).augment(GREY) == 0).all()
    np.testing.assert_array_equal(imgaug.SaltPepperNoise(0, 0).augment(GREY), GREY)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(60, 50, 3), (60, 50, 1), (60, 50)])
def test_jpeg_noise_is_that_of_cv2s_jpeg(dtype: str, shape: tuple[int, ...]) -> None:
    img = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8), (5, 5), 0)
    img = img if len(shape) == 3 and shape[2] == 3 else img[:, :, 0].reshape(shape)
    noisy = imgaug.JpegNoise((30, 31)).augment(img.astype(dtype))
    encoded = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    expected = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED).reshape(shape)
    assert noisy.dtype == dtype
    np.testing.assert_array_equal(noisy, expected)
    assert 0 < np.abs(noisy.astype(float) - img).mean() < 40


def test_a_mask_of_another_shape_gets_its_own_noise_from_the_same_draw() -> None:
    transform = imgaug.GaussianNoise(5).get_transform(GREY)
    assert transform.apply_image(GREY[:, :, 0]).shape == (200, 150)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 1 together"):
        imgaug.SaltPepperNoise(0.6, 0.6)
    with pytest.raises(ConfigError, match="quality_range"):
        imgaug.JpegNoise((50, 102))
    with pytest.raises(DatapointError, match="1 or 3 channels"):
        imgaug.JpegNoise().augment(np.zeros((5, 5, 4), np.uint8))
