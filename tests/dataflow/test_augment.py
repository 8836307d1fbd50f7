"""Augmenting operators: which components change, that the source never does, and what becomes of images that fail."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromList, fix_rng_seed, imgaug
from dfserve.dataflow.augment import AugmentImageComponent, AugmentImageComponents, AugmentImageCoordinates
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError

IMAGE = np.random.default_rng(0).integers(1, 256, (12, 16, 3), np.uint8)
MASK = IMAGE[:, :, 0].astype(np.int32)
POINTS = np.array([[0.5, 0.5], [15.5, 3.5], [7.5, 11.5]], np.float32)
MIRROR = imgaug.Flip(horiz=True, prob=1)


class Darken(imgaug.ImageAugmentor):
    """An augmentor in the older style, which writes into its image and its points."""

    def _augment(self, img: np.ndarray, _: Any) -> np.ndarray:
        img[:] = 0
        return img

    def _augment_coords(self, coords: np.ndarray, _: Any) -> np.ndarray:
        coords += 1
        return coords


class Fails(imgaug.PhotometricAugmentor):
    """Fails for images whose first pixel is odd."""

    def _augment(self, img: np.ndarray, _: Any) -> np.ndarray:
        if img[0, 0] % 2:
            raise ArithmeticError("odd")
        return img


def run(ds: Any) -> list[Any]:
    ds.reset_state()
    return list(ds)


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


@pytest.mark.parametrize(
    ("datapoint", "index", "expected"),
    [
        ([IMAGE, 3], 0, [IMAGE[:, ::-1], 3]),
        ((3, IMAGE), 1, [3, IMAGE[:, ::-1]]),
        ({"label": 3, "img": IMAGE}, "img", {"label": 3, "img": IMAGE[:, ::-1]}),
    ],
)
def test_the_named_image_is_augmented_and_all_else_stays(datapoint: Any, index: Any, expected: Any) -> None:
    (result,) = run(AugmentImageComponent(listed(datapoint), [MIRROR], index))
    np.testing.assert_equal(result, expected)
    assert type(result) is type(expected)


def test_augmentors_may_be_a_list_or_an_augmentor_list() -> None:
    for augmentors in ([MIRROR, MIRROR], (MIRROR, MIRROR), imgaug.AugmentorList([MIRROR, MIRROR])):
        ds = AugmentImageComponent(listed([IMAGE]), augmentors)
        np.testing.assert_array_equal(run(ds)[0][0], IMAGE)
        assert isinstance(ds.augs, imgaug.AugmentorList)
    with pytest.raises(ConfigError, match="give a list of augmentors"):
        AugmentImageComponent(listed([IMAGE]), MIRROR)


@pytest.mark.parametrize("index", [0, 1])
def test_an_image_component_is_what_tensorpack_makes_of_it(tensorpack: ModuleType, index: int) -> None:
    def made(library: Any, component: Any, source: Any) -> Any:
        return component(source, [library.CenterCrop((9, 11)), library.Flip(vert=True, prob=1)], index)

    datapoints = [[IMAGE, IMAGE[::-1]], [IMAGE[:, ::-1], IMAGE]]
    theirs = made(
        tensorpack.imgaug, tensorpack.AugmentImageComponent, tensorpack.DataFromList(datapoints, shuffle=False)
    )
    np.testing.assert_equal(run(made(imgaug, AugmentImageComponent, listed(*datapoints))), run(theirs))


def test_image_mask_and_points_share_one_draw() -> None:
    augmentors = [imgaug.RandomCrop((9, 9)), imgaug.Flip(horiz=True), imgaug.RandomPaste(11), imgaug.Transpose()]
    ds = AugmentImageComponents(
        listed(*[{"img": IMAGE, "mask": MASK, "points": POINTS, "n": n} for n in range(30)]),
        augmentors,
        index=("img", "mask"),
        coords_index=("points",),
    )
    results = run(ds)
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result["img"][:, :, 0], result["mask"])
        assert result["mask"].dtype == MASK.dtype
        for (x, y), (old_x, old_y) in zip(result["points"], POINTS, strict=True):
            if 0 <= x < 11 and 0 <= y < 11 and result["mask"][int(y), int(x)]:
                assert result["mask"][int(y), int(x)] == MASK[int(old_y), int(old_x)]
        assert result["n"] == n
    assert len({result["mask"].tobytes() for result in results}) > 10


def test_one_image_and_its_points() -> None:
    ((label, points, image),) = run(AugmentImageCoordinates(listed((7, POINTS, IMAGE)), [MIRROR], 2, 1))
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_array_equal(points, [16, 0] - POINTS * [1, -1])
    assert label == 7
    assert points.dtype == np.float32


def test_points_of_whole_numbers_become_floating_point_whatever_is_drawn() -> None:
    source = listed(*[[IMAGE, POINTS.astype(int)]] * 40)
    results = run(AugmentImageCoordinates(source, [imgaug.Flip(horiz=True)]))
    assert {points.dtype for _, points in results} == {np.dtype(np.float64)}
    assert len({points.tobytes() for _, points in results}) == 2


@pytest.mark.parametrize(
    "augmentors", [[Darken()], [imgaug.Identity(), Darken()], [imgaug.RandomApplyAug(Darken(), 1)]]
)
def test_an_augmentor_that_writes_into_its_image_does_not_reach_the_source(augmentors: list[Any]) -> None:
    image, points = IMAGE.copy(), POINTS.copy()
    datapoint = [image, points]
    (one,) = run(AugmentImageComponent(listed(datapoint), augmentors))
    assert not one[0].any()
    (both,) = run(AugmentImageCoordinates(listed(datapoint), augmentors))
    np.testing.assert_array_equal(both[1], POINTS + 1)
    np.testing.assert_equal(datapoint, [IMAGE, POINTS])
    assert datapoint[0] is image


@pytest.mark.parametrize("augmentors", [[], [imgaug.Identity()], [imgaug.CenterCrop((4, 5))], [imgaug.ToUint8()]])
def test_whoever_writes_into_what_comes_out_does_not_reach_the_source(augmentors: list[Any]) -> None:
    datapoint = [IMAGE.copy(), POINTS.copy()]
    for result in run(AugmentImageCoordinates(listed(datapoint), augmentors)):
        result[0][:] = 0
        result[1][:] = 0
    np.testing.assert_equal(datapoint, [IMAGE, POINTS])


def test_what_cannot_be_written_to_is_augmented_and_can_be_written_to_afterwards() -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    for augmentors in ([imgaug.Identity()], [Darken()], [imgaug.Brightness(3)]):
        ((result,),) = run(AugmentImageComponent(listed([image]), augmentors))
        result[:] = 0
    np.testing.assert_array_equal(image, IMAGE)


def test_the_source_is_copied_only_for_augmentors_that_are_not_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(imgaug.Brightness, "_get_augment_params", lambda self, img: seen.append(img) or 0)
    run(AugmentImageComponent(listed([IMAGE]), [imgaug.Brightness(3)]))
    run(AugmentImageComponent(listed([IMAGE]), [imgaug.Brightness(3), Darken()]))
    run(AugmentImageComponent(listed([IMAGE.copy()]), [imgaug.Brightness(3), Darken()], copy=False))
    assert seen[0] is IMAGE
    assert seen[1] is not IMAGE
    assert np.array_equal(seen[1], IMAGE)


def test_without_copies_the_sources_own_array_goes_through() -> None:
    image = IMAGE.copy()
    ((same,),) = run(AugmentImageComponent(listed([image]), [imgaug.Identity()], copy=False))
    assert same is image
    run(AugmentImageComponent(listed([image]), [Darken()], copy=False))
    assert not image.any()


@pytest.mark.parametrize("nothing", [None, "a.jpg", [[1, 2], [3, 4]]])
def test_what_is_no_image_is_an_error_that_names_the_component(nothing: Any) -> None:
    with pytest.raises(DatapointError, match="component 1 is") as caught:
        run(AugmentImageComponent(listed(["cats/1.jpg", nothing]), [MIRROR], 1))
    assert key_of(caught.value) == "cats/1.jpg"
    with pytest.raises(DatapointError, match="component 'mask' is"):
        run(AugmentImageComponents(listed({"img": IMAGE, "mask": nothing}), [MIRROR], ("img", "mask")))


def test_an_image_that_cv2_could_not_read_is_told_as_that() -> None:
    with pytest.raises(DatapointError, match=r"component 0 is None, which cv2\.imread"):
        run(AugmentImageComponent(listed([None]), [MIRROR]))


@pytest.mark.parametrize("points", [None, [1, 2, 3], np.zeros((3, 4))])
def test_what_are_no_points_is_an_error_that_names_the_component(points: Any) -> None:
    with pytest.raises(DatapointError, match=r"component 1: points are an array of shape \(N, 2\)"):
        run(AugmentImageCoordinates(listed([IMAGE, points]), [MIRROR]))


def test_images_that_fail_are_skipped_and_logged_if_told_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    quarantine = tmp_path / "bad.jsonl"
    datapoints = [[np.full((2, 2), n, np.uint8), f"{n}.jpg"] for n in range(6)] + [[None, "none.jpg"]]
    for arguments in (
        {"catch_exceptions": True},
        {"on_error": "skip"},
        {"on_error": SkipErrors(quarantine=quarantine), "catch_exceptions": True},
    ):
        caplog.clear()
        results = run(AugmentImageComponent(listed(*datapoints), [Fails()], **arguments))
        assert [name for _, name in results] == ["0.jpg", "2.jpg", "4.jpg"]
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
        assert "AugmentImageComponent skipped item 1.jpg (1 so far): ArithmeticError: odd" in caplog.text
    keys = [json.loads(line)["key"] for line in quarantine.read_text().splitlines()]
    assert keys == ["1.jpg", "3.jpg", "5.jpg", "none.jpg"]
    with pytest.raises(ArithmeticError):
        run(AugmentImageComponent(listed(*datapoints), [Fails()]))


@pytest.mark.parametrize("operator", [AugmentImageComponent, AugmentImageComponents, AugmentImageCoordinates])
def test_catching_exceptions_and_raising_them_is_a_contradiction(operator: Any) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        operator(listed([IMAGE]), [MIRROR], catch_exceptions=True, on_error="raise")


def test_an_augmentor_that_returns_none_drops_the_datapoint_as_in_tensorpack() -> None:
    ds = AugmentImageComponent(listed([IMAGE, 0], [IMAGE[:4], 1]), [imgaug.MapImage({12: None}.get)])
    with pytest.raises(TypeError):  # an array is no key of a dict
        run(ds)
    ds = AugmentImageComponent(
        listed([IMAGE, 0], [IMAGE[:4], 1]), [imgaug.MapImage(lambda img: None if len(img) == 4 else img)]
    )
    assert [label for _, label in run(ds)] == [0]


def test_one_index_is_as_good_as_a_tuple_of_one_and_none_is_refused() -> None:
    (result,) = run(AugmentImageComponents(listed({"image": IMAGE}), [MIRROR], "image"))
    np.testing.assert_array_equal(result["image"], IMAGE[:, ::-1])
    with pytest.raises(ConfigError, match="name one image at least"):
        AugmentImageComponents(listed([IMAGE]), [MIRROR], ())


def test_one_seed_repeats_the_draws_and_every_reset_starts_others() -> None:
    ds = AugmentImageComponent(listed(*[[IMAGE]] * 5), [imgaug.RandomCrop(3), imgaug.Brightness(90)])

    def drawn() -> list[bytes]:
        return [image.tobytes() for (image,) in run(ds)]

    fix_rng_seed(7)
    first, second = drawn(), drawn()
    fix_rng_seed(7)
    assert drawn() == first
    assert drawn() == second != first
