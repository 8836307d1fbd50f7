"""Augmentors: their random streams, in processes and threads, and how they are used and printed."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.errors import DatapointError, DfserveError

IMAGE = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
POINTS = np.array([[0.5, 0.5], [3.5, 2.5]])


class Unprepared(imgaug.ImageAugmentor):
    """What does not call its parent's constructor, as many an old augmentor."""

    def __init__(self, prob: float = 0.5) -> None:
        self._init(locals())

    def get_transform(self, img: np.ndarray) -> imgaug.Transform:
        return imgaug.FlipTransform(*img.shape[:2]) if self._rand_range() < self.prob else imgaug.NoOpTransform()


def test_one_that_was_just_made_works_at_once() -> None:
    augmented = imgaug.RandomCrop(20).augment(IMAGE)
    assert augmented.shape == (20, 20, 3)


def test_drawing_before_the_reset_says_what_to_call() -> None:
    augmentor = Unprepared()
    with pytest.raises(DfserveError, match=r"Unprepared .*reset_state\(\)"):
        augmentor.augment(IMAGE)
    augmentor.reset_state()
    assert augmentor.augment(IMAGE).shape == IMAGE.shape


def test_every_reset_starts_another_stream() -> None:
    augmentor = imgaug.Identity()
    streams = []
    for _ in range(3):
        augmentor.reset_state()
        streams.append(tuple(augmentor.rng.rand(4)))
    assert len(set(streams)) == 3


def test_a_generator_that_is_set_is_used() -> None:
    augmentor = Unprepared()
    augmentor.rng = np.random.RandomState(3)
    assert augmentor.rng.rand() == np.random.RandomState(3).rand()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda augmentor: pickle.loads(pickle.dumps(augmentor))])
def test_a_copy_draws_other_numbers(copied: object) -> None:
    augmentor = imgaug.AugmentorList([imgaug.RandomCrop(20)])
    twin = copied(augmentor)
    assert twin.augment(IMAGE).shape == (20, 20, 3)
    assert not np.array_equal(twin.rng.rand(4), augmentor.rng.rand(4))


def test_a_copy_of_one_that_was_not_reset_was_not_reset_either() -> None:
    with pytest.raises(DfserveError, match="was not reset"):
        pickle.loads(pickle.dumps(imgaug.AugmentorList.__new__(imgaug.AugmentorList))).rng.rand()


FORKS = """
import os
from dfserve.dataflow import imgaug
augmentor = imgaug.AugmentorList([imgaug.RandomCrop(2)])
inner = augmentor.augmentors[0]
inner.rng.rand()
for _ in range(4):
    if not (pid := os.fork()):
        print(inner.rng.rand(3).tolist(), flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
print(inner.rng.rand(3).tolist())
"""


def test_forks_draw_other_numbers_without_a_reset() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    streams = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(streams) == len(set(streams)) == 5


SPAWNED = """
import pickle, sys
import numpy as np
augmentor, img = pickle.load(sys.stdin.buffer)
print(augmentor.augment(img).shape, augmentor.augmentors[0].rng.rand())
"""


def test_it_works_in_a_process_that_was_spawned() -> None:
    augmentor = imgaug.AugmentorList([imgaug.GoogleNetRandomCropAndResize(target_shape=24), imgaug.Flip(horiz=True)])
    command = [sys.executable, "-c", SPAWNED]
    sent = pickle.dumps((augmentor, IMAGE))
    printed = [subprocess.run(command, input=sent, capture_output=True, check=True).stdout for _ in range(2)]
    assert all(line.startswith(b"(24, 24, 3) 0.") for line in printed)
    assert printed[0] != printed[1]


def test_many_threads_share_one() -> None:
    augmentor = imgaug.AugmentorList([imgaug.GoogleNetRandomCropAndResize(target_shape=24), imgaug.Flip(horiz=True)])
    x, y = (ramp.astype(np.float32) + 0.5 for ramp in np.meshgrid(np.arange(500), np.arange(400)))
    img = np.stack([x, y, np.zeros_like(x)], axis=2)
    wrong: list[object] = []
    drawn: list[tuple[int, ...]] = []

    def work() -> None:
        try:
            for _ in range(20):
                tfm = augmentor.get_transform(img)
                middle = tfm.apply_image(img)[11:13, 11:13, :2].reshape(-1, 2).mean(axis=0, keepdims=True)
                if not np.allclose(tfm.apply_coords(middle), 12, atol=0.01):
                    wrong.append(middle)
                crop = tfm.tfms[0].tfms[0]
                drawn.append((crop.y0, crop.x0, crop.h, crop.w))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(drawn) == 500
    assert len(set(drawn)) == 500  # of some 10**10 parts that are possible


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (None, "cv2.imread"),
        ([[1, 2]], "a list"),
        (np.zeros(5), r"\(5,\)"),
        (np.zeros((1, 2, 3, 4)), r"\(1, 2, 3, 4\)"),
        (np.zeros((0, 5, 3)), r"at least one pixel.*\(0, 5, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(img: object, message: str) -> None:
    for augmentor in (imgaug.Identity(), imgaug.AugmentorList([imgaug.Identity()])):
        with pytest.raises(DatapointError, match=message):
            augmentor.augment(img)
    with pytest.raises(DatapointError, match=message):
        augmentor.get_transform(img)


def test_the_older_calls_do_the_same_to_other_images_and_points() -> None:
    augmentor = imgaug.AugmentorList([imgaug.RandomCrop(20), imgaug.Flip(horiz=True)])
    augmented, params = augmentor.augment_return_params(IMAGE)
    assert np.array_equal(augmentor.augment_with_params(IMAGE, params), augmented)
    assert np.array_equal(augmentor.augment_coords(POINTS, params), params.apply_coords(POINTS))


def test_random_numbers_come_as_float32_in_their_range() -> None:
    augmentor = imgaug.Identity()
    for low, high, args in [(0, 1, ()), (0, 3, (3,)), (2, 3, (2, 3)), (-1, 1, (-1, 1, (2, 5)))]:
        drawn = augmentor._rand_range(*args)
        assert drawn.dtype == np.float32
        assert np.shape(drawn) == (args[2] if len(args) > 2 else ())
        assert ((low <= drawn) & (drawn <= high)).all()


def test_the_arguments_of_a_constructor_are_kept() -> None:
    class Kept(imgaug.ImageAugmentor):
        def __init__(self, a: int, b: int = 2, _hidden: int = 3) -> None:
            super().__init__()
            a += 1
            self._init(locals())

    kept = Kept(1)
    assert (kept.a, kept.b) == (2, 2)
    assert not hasattr(kept, "_hidden")
    assert not hasattr(kept, "self")
    assert repr(kept) == "imgaug.Kept(a=2)"


def test_augmentors_are_printed_as_the_calls_that_make_them() -> None:
    assert str(imgaug.Flip(horiz=True)) == "imgaug.Flip(horiz=True)"
    assert repr(imgaug.GoogleNetRandomCropAndResize(target_shape=300)) == (
        "imgaug.GoogleNetRandomCropAndResize(target_shape=300)"
    )
    nested = imgaug.AugmentorList([imgaug.Identity(), imgaug.AugmentorList([imgaug.Transpose()])])
    assert repr(nested) == (
        "imgaug.AugmentorList([\n  imgaug.Identity(),\n  imgaug.AugmentorList([\n    imgaug.Transpose()])])"
    )


def test_a_photometric_one_moves_nothing_and_its_transform_travels() -> None:
    tfm = Brighter(9).get_transform(IMAGE)
    assert np.array_equal(tfm.apply_image(IMAGE), IMAGE + np.uint8(9))
    assert tfm.apply_coords(POINTS) is POINTS
    assert repr(tfm) == "imgaug.PhotometricTransform(imgaug.Brighter(by=9))"
    with pytest.raises(NotImplementedError, match="does not define _augment"):
        imgaug.PhotometricAugmentor().augment(IMAGE)


class Brighter(imgaug.PhotometricAugmentor):
    def __init__(self, by: int) -> None:
        super().__init__()
        self._init(locals())

    def _get_augment_params(self, _: np.ndarray) -> np.uint8:
        return np.uint8(self.by)

    def _augment(self, img: np.ndarray, v: np.uint8) -> np.ndarray:
        return img + v
