"""Other libraries' augmentors: called as they want to be, with one draw for an image and what belongs to it."""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from dfserve.dataflow import fix_rng_seed, imgaug
from dfserve.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


class OldStyle:
    """As albumentations before 1.4.21: draws from the generators of the process."""

    def __call__(self, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        turns = random.randrange(4)  # no secret
        noise = np.random.randint(0, 5, data["image"].shape)  # as it does
        return {**data, "image": np.rot90(data["image"] + noise, turns)}


def plain(img: np.ndarray) -> np.ndarray:
    return np.roll(img, np.random.randint(40), axis=0)


def named(*, image: np.ndarray) -> np.ndarray:
    return np.roll(image, random.randrange(40), axis=0)


class OwnGenerator:
    """As albumentations since: draws from generators that it was given, as it goes."""

    def __init__(self) -> None:
        self.random = random.Random()

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        self.random = py_random

    def __call__(self, *, image: np.ndarray) -> dict[str, Any]:
        drawn = 0.0
        for _ in range(5):
            drawn += self.random.random()
            time.sleep(0)  # let another thread run
        return {"image": image + drawn}


@pytest.mark.parametrize("function", [OldStyle(), plain, named, OwnGenerator()])
def test_one_draw_does_the_same_each_time_and_the_next_does_not(function: Any) -> None:
    augmentor = imgaug.Albumentations(function)
    transforms = [augmentor.get_transform(IMAGE) for _ in range(8)]
    results = [transform.apply_image(IMAGE) for transform in transforms]
    for transform, result in zip(transforms, results, strict=True):
        np.testing.assert_array_equal(transform.apply_image(IMAGE), result)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(transform)).apply_image(IMAGE), result)
    assert len({result.tobytes() for result in results}) > 1


@pytest.mark.parametrize("function", [OldStyle(), plain, named, OwnGenerator()])
def test_one_seed_gives_one_sequence_whatever_the_process_drew_before(function: Any) -> None:
    augmentor = imgaug.Albumentations(function)
    runs = []
    for run in range(2):
        random.seed(run)
        np.random.seed(run)
        fix_rng_seed(5)
        augmentor.reset_state()
        runs.append([augmentor.augment(IMAGE).tobytes() for _ in range(5)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("function", [OldStyle(), plain, named])
def test_the_generators_of_the_process_go_on_where_they_were(function: Any) -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    imgaug.Albumentations(function).augment(IMAGE)
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize("function", [plain, OwnGenerator()])
def test_threads_do_not_draw_from_each_others_seeds(function: Any) -> None:
    augmentor = imgaug.Albumentations(function)
    transforms = [augmentor.get_transform(IMAGE) for _ in range(40)]
    alone = [transform.apply_image(IMAGE).tobytes() for transform in transforms]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda transform: transform.apply_image(IMAGE).tobytes(), transforms * 3))
    assert together == alone * 3


def test_a_function_written_in_c_takes_the_image_by_position() -> None:
    np.testing.assert_array_equal(imgaug.Albumentations(cv2.transpose).augment(IMAGE), IMAGE.swapaxes(0, 1))
    np.testing.assert_array_equal(imgaug.Albumentations(np.negative).augment(IMAGE), -IMAGE)


def test_points_do_not_follow() -> None:
    with pytest.raises(NotImplementedError, match="apply_coords"):
        imgaug.Albumentations(plain).get_transform(IMAGE).apply_coords(np.zeros((1, 2)))


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="list, which cannot be called"):
        imgaug.Albumentations([plain])
    with pytest.raises(ConfigError, match=r"imgaug\.augmenters"):
        imgaug.IAAugmentor(plain)


@pytest.fixture
def albumentations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    module: ModuleType = pytest.importorskip("albumentations")
    return module


def test_albumentations_do_the_same_to_image_and_mask(albumentations: ModuleType) -> None:
    composed = albumentations.Compose([albumentations.HorizontalFlip(), albumentations.RandomRotate90(p=1)])
    augmentor = imgaug.Albumentations(composed)
    seen = set()
    for _ in range(200):
        transform = augmentor.get_transform(IMAGE)
        augmented = transform.apply_image(IMAGE)
        np.testing.assert_array_equal(transform.apply_image(IMAGE[:, :, 0].copy()), augmented[:, :, 0])
        seen.add(augmented.tobytes())
    assert len(seen) == 8


def test_the_parts_of_an_albumentations_compose_draw_apart(albumentations: ModuleType) -> None:
    flips = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    augmentor = imgaug.Albumentations(albumentations.Compose(flips))
    both = {False: 0, True: 0}
    for _ in range(200):
        augmented = augmentor.augment(IMAGE)
        either = any(np.array_equal(augmented, flipped) for flipped in (IMAGE[:, ::-1], IMAGE[::-1]))
        both[either] += 1
    assert both[True] == pytest.approx(100, abs=40)


def test_an_augmentor_of_the_imgaug_library_moves_image_mask_and_points_alike() -> None:
    library = pytest.importorskip("imgaug")  # it does not work with numpy 2
    flip = library.augmenters.Sequential([library.augmenters.Fliplr(0.5), library.augmenters.Flipud(0.5)])
    augmentor = imgaug.IAAugmentor(flip)
    seen = set()
    for _ in range(100):
        transform = augmentor.get_transform(IMAGE)
        augmented = transform.apply_image(IMAGE)
        np.testing.assert_array_equal(transform.apply_image(IMAGE), augmented)
        ((x, y),) = transform.apply_coords(np.array([[3.5, 7.5]], np.float32))
        np.testing.assert_array_equal(augmented[int(y), int(x)], IMAGE[7, 3])
        seen.add(augmented.tobytes())
    assert len(seen) == 4


def test_a_child_that_is_forked_during_a_call_does_not_wait_for_it() -> None:
    running, done = threading.Event(), threading.Event()

    def slow(img: np.ndarray) -> np.ndarray:
        running.set()
        done.wait(60)
        return img

    thread = threading.Thread(target=imgaug.Albumentations(slow).augment, args=[IMAGE])
    thread.start()
    running.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, against forking beside threads
        child = os.fork()
    if not child:
        try:
            signal.alarm(30)  # a child that hangs is ended by it
            imgaug.Albumentations(plain).augment(IMAGE)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0


def test_an_adapter_within_an_adapter_does_not_wait_for_itself() -> None:
    inner = imgaug.Albumentations(plain)
    outer = imgaug.Albumentations(lambda img: inner.augment(img))
    results: list[Any] = []

    def work() -> None:
        transform = outer.get_transform(IMAGE)
        results.extend(transform.apply_image(IMAGE).shape for _ in range(2))

    thread = threading.Thread(target=work, daemon=True)  # one that hangs does not keep the process
    thread.start()
    thread.join(30)
    assert results == [IMAGE.shape] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, against forking beside threads
        child = os.fork()
    if not child:
        try:
            signal.alarm(30)  # a child that hangs is ended by it
            outer.augment(IMAGE)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
