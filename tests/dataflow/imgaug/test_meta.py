"""Augmentors made of others: what they choose, how often, and that one draw is one transform for all that belongs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dfserve.dataflow import fix_rng_seed, imgaug
from dfserve.errors import ConfigError

IMAGE = np.arange(6 * 7, dtype=np.float32).reshape(6, 7)
POINTS = np.array([[0.5, 0.5], [6.5, 5.5]])


class Add(imgaug.PhotometricAugmentor):
    """Adds a number, and counts how often it was reset."""

    def __init__(self, number: float) -> None:
        self.resets = 0
        super().__init__()
        self.number = number

    def reset_state(self) -> None:
        super().reset_state()
        self.resets += 1

    def _augment(self, img: np.ndarray, params: object) -> np.ndarray:
        return img + self.number


def change(augmentor: imgaug.ImageAugmentor) -> float:
    return float((augmentor.augment(IMAGE) - IMAGE)[0, 0])


@pytest.mark.parametrize("prob", [0, 0.3, 1])
def test_an_augmentor_is_applied_as_often_as_said(prob: float) -> None:
    augmentor = imgaug.RandomApplyAug(Add(1), prob)
    assert np.mean([change(augmentor) for _ in range(1000)]) == pytest.approx(prob, abs=0.08 if prob == 0.3 else 0)


def test_one_of_several_is_as_likely_as_its_probability() -> None:
    even = Counter(change(imgaug.RandomChooseAug([Add(1), Add(2)])) for _ in range(400))
    assert set(even) == {1, 2}
    assert even[1] == pytest.approx(200, abs=60)
    augmentor = imgaug.RandomChooseAug([(Add(1), 0.0), (Add(2), 0.25), [Add(3), 0.75], (Add(4), 0)])
    uneven = Counter(change(augmentor) for _ in range(1000))
    assert set(uneven) == {2, 3}
    assert uneven[3] == pytest.approx(750, abs=80)


def test_every_order_of_several_comes_and_each_applies_once() -> None:
    append = imgaug.MapImage
    augmentor = imgaug.RandomOrderAug([append(lambda img, k=k: img * 10 + k) for k in (1, 2, 3)])
    orders = {int(augmentor.augment(np.zeros((1, 1)))[0, 0]) for _ in range(200)}
    assert orders == {123, 132, 213, 231, 312, 321}


def test_in_any_order_each_policy_sees_the_image_before_it() -> None:
    # tensorpack draws all of them for the first image, and would crop rows that the transposed image lacks.
    augmentor = imgaug.RandomOrderAug([imgaug.Transpose(prob=1), imgaug.CenterCrop((6, 5))])
    for _ in range(20):
        assert augmentor.augment(IMAGE).shape in [(5, 6), (6, 5)]


@pytest.mark.parametrize(
    "augmentor",
    [
        imgaug.RandomApplyAug(imgaug.Flip(horiz=True), 0.7),
        imgaug.RandomChooseAug([imgaug.Flip(horiz=True, prob=1), imgaug.RandomCrop(4), imgaug.RandomPaste((9, 9))]),
        imgaug.RandomOrderAug([imgaug.RandomPaste((9, 9)), imgaug.Flip(vert=True), imgaug.Transpose()]),
        imgaug.RandomApplyAug(imgaug.AugmentorList([imgaug.Flip(horiz=True), imgaug.RandomCrop(4)]), 0.7),
    ],
)
def test_mask_and_points_follow_the_image_that_was_drawn_for(augmentor: imgaug.ImageAugmentor) -> None:
    for _ in range(20):
        transform = augmentor.get_transform(IMAGE)
        augmented = transform.apply_image(IMAGE)
        np.testing.assert_array_equal(transform.apply_image(IMAGE.astype(int)), augmented)
        for (x, y), value in zip(transform.apply_coords(POINTS), (IMAGE[0, 0], IMAGE[5, 6]), strict=True):
            if 0 <= x < augmented.shape[1] and 0 <= y < augmented.shape[0]:
                assert augmented[int(y), int(x)] == value


def test_a_reset_reaches_all_that_are_held() -> None:
    parts = [Add(n) for n in range(4)]
    holders = [
        imgaug.RandomApplyAug(parts[0], 1),
        imgaug.RandomChooseAug([parts[1]]),
        imgaug.RandomChooseAug([(parts[2], 1.0)]),
        imgaug.RandomOrderAug([parts[3]]),
    ]
    before = [part.resets for part in parts]
    for holder in holders:
        holder.reset_state()
    assert [part.resets - reset for part, reset in zip(parts, before, strict=True)] == [1, 1, 1, 1]


def test_one_seed_gives_one_sequence_of_choices() -> None:
    augmentor = imgaug.RandomChooseAug([Add(1), imgaug.RandomApplyAug(Add(2), 0.5), imgaug.RandomOrderAug([Add(4)])])
    runs = []
    for _ in range(2):
        fix_rng_seed(3)
        augmentor.reset_state()
        runs.append([change(augmentor) for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {0, 1, 2, 4}


def test_a_function_maps_the_image_and_another_its_points() -> None:
    transform = imgaug.MapImage(lambda img: img[:, 1:], lambda coords: coords - [1, 0]).get_transform(IMAGE)
    np.testing.assert_array_equal(transform.apply_image(IMAGE), IMAGE[:, 1:])
    np.testing.assert_array_equal(transform.apply_coords(POINTS), POINTS - [1, 0])


def test_points_do_not_follow_a_function_of_the_image_alone() -> None:
    transform = imgaug.MapImage(np.negative).get_transform(IMAGE)
    np.testing.assert_array_equal(transform.apply_image(IMAGE), -IMAGE)
    with pytest.raises(NotImplementedError, match="apply_coords"):
        transform.apply_coords(POINTS)


def test_what_is_no_augmentor_or_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match="MapImage"):
        imgaug.RandomApplyAug(np.negative, 0.5)
    with pytest.raises(ConfigError, match="prob is 2"):
        imgaug.RandomApplyAug(Add(1), 2)
    with pytest.raises(ConfigError, match="add up to 1"):
        imgaug.RandomChooseAug([(Add(1), 0.5), (Add(2), 0.4)])
    with pytest.raises(ConfigError, match="add up to 1"):
        imgaug.RandomChooseAug([(Add(1), 1.5), (Add(2), -0.5)])
    with pytest.raises(ConfigError, match="one at least"):
        imgaug.RandomChooseAug([])
    with pytest.raises(ConfigError, match="augmentor 1 is a tuple"):
        imgaug.RandomChooseAug([Add(1), (Add(2), 0.5)])


def test_they_print_as_the_call_that_makes_them() -> None:
    assert repr(imgaug.RandomApplyAug(imgaug.Brightness(3), 0.5)) == (
        "imgaug.RandomApplyAug(aug=imgaug.Brightness(delta=3), prob=0.5)"
    )
    assert repr(imgaug.RandomOrderAug([imgaug.ToUint8()])) == "imgaug.RandomOrderAug([\n  imgaug.ToUint8()])"
