"""Transforms: what they do to images and points, and what they refuse."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from dfserve.dataflow import imgaug
from dfserve.dataflow.imgaug import transform
from dfserve.errors import DatapointError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
POINTS = np.array([[0.5, 0.5], [3.5, 2.5]])

GEOMETRIC = [
    imgaug.ResizeTransform(3, 4, 6, 2, cv2.INTER_LINEAR),
    imgaug.CropTransform(1, 0, 2, 3),
    imgaug.FlipTransform(3, 4),
    imgaug.FlipTransform(3, 4, horiz=False),
    imgaug.TransposeTransform(),
    imgaug.WarpAffineTransform(np.array([[1.0, 0, 1], [0, 1, 0]]), (4, 3)),
]


@pytest.mark.parametrize("tfm", GEOMETRIC, ids=repr)
def test_a_single_channel_stays_an_axis(tfm: imgaug.Transform) -> None:
    grey = tfm.apply_image(GREY)
    assert grey.ndim == 2
    one = tfm.apply_image(GREY[:, :, None])
    assert one.shape == (*grey.shape, 1)
    assert np.array_equal(one[:, :, 0], grey)


@pytest.mark.parametrize("tfm", GEOMETRIC, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_points_keep_their_floating_dtype_and_are_not_changed(tfm: imgaug.Transform, dtype: str) -> None:
    points = np.array([[1, 2], [3, 1]], dtype)
    points.flags.writeable = False
    moved = tfm.apply_coords(points)
    assert moved.dtype == (dtype if dtype != "int32" else "float64")
    assert not np.shares_memory(moved, points)
    assert moved == pytest.approx(tfm.apply_coords(points.astype(np.float64)))


@pytest.mark.parametrize("tfm", GEOMETRIC, ids=repr)
def test_points_of_another_shape_are_refused_with_theirs(tfm: imgaug.Transform) -> None:
    assert tfm.apply_coords(np.zeros((0, 2))).shape == (0, 2)
    with pytest.raises(DatapointError, match=r"\(5, 4\).*boxes.reshape"):
        tfm.apply_coords(np.zeros((5, 4)))


@pytest.mark.parametrize("tfm", [imgaug.FlipTransform(3, 4), imgaug.TransposeTransform()], ids=repr)
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 8, 200])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "uint64", "float16", "float64", ">i4"])
def test_mirroring_keeps_every_value_of_every_dtype(tfm: imgaug.Transform, channels: int, dtype: str) -> None:
    img = (np.random.RandomState(0).randint(0, 2**15, (3, 4, channels)) << (40 if "64" in dtype else 0)).astype(dtype)
    mirrored = tfm.apply_image(img)
    assert mirrored.dtype == dtype
    assert mirrored.flags.c_contiguous
    expected = img[:, ::-1] if isinstance(tfm, imgaug.FlipTransform) else img.swapaxes(0, 1)
    assert np.array_equal(mirrored, expected)


@pytest.mark.parametrize("tfm", [GEOMETRIC[0], GEOMETRIC[-1]], ids=repr)
@pytest.mark.parametrize("dtype", ["bool", "int64", "uint64", "float16", "complex64", ">f4"])
def test_a_dtype_that_cv2_would_cut_or_misread_is_refused(tfm: imgaug.Transform, dtype: str) -> None:
    with pytest.raises(DatapointError, match=rf"no images of dtype {dtype}.*astype"):
        tfm.apply_image(np.ones((3, 4), dtype))


@pytest.mark.parametrize("tfm", [GEOMETRIC[0], GEOMETRIC[-1]], ids=repr)
def test_what_cv2_refuses_is_told_with_shape_and_dtype(tfm: imgaug.Transform) -> None:
    with pytest.raises(DatapointError, match=r"\(3, 4\) and dtype int8") as caught:
        tfm.apply_image(np.zeros((3, 4), np.int8))
    assert isinstance(caught.value.__cause__, cv2.error)


def test_an_image_of_another_size_than_it_was_made_for_is_not_resized() -> None:
    with pytest.raises(DatapointError, match=r"3 x 4 pixels.*\(4, 3\)"):
        GEOMETRIC[0].apply_image(np.zeros((4, 3), np.uint8))


def test_resizing_to_the_same_size_copies_nothing() -> None:
    assert imgaug.ResizeTransform(3, 4, 3, 4, cv2.INTER_LINEAR).apply_image(GREY) is GREY


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, -1, 2, 2), (2, 0, 2, 2), (0, 3, 2, 2), (1, 1, 0, 2), (1, 1, 2, 0)])
def test_a_part_that_is_empty_or_not_in_the_image_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(DatapointError, match=r"shape \(3, 4\)"):
        imgaug.CropTransform(*box).apply_image(GREY)


def test_a_part_is_a_view() -> None:
    assert np.shares_memory(imgaug.CropTransform(1, 1, 2, 3).apply_image(GREY), GREY)


@pytest.mark.parametrize("value", [9, 9.0, np.uint8(9), (9, 9, 9), [9, 9, 9, 9], np.array([9, 9, 9])], ids=repr)
def test_a_border_has_its_value_in_every_channel(value: object) -> None:
    tfm = imgaug.WarpAffineTransform(np.array([[1.0, 0, 2], [0, 1, 0]]), (4, 3), borderValue=value)
    assert (tfm.apply_image(np.ones((3, 4, 3), np.uint8))[:, :2] == 9).all()


def test_an_inverse_map_moves_points_the_other_way() -> None:
    mat = np.array([[1.0, 0.2, 2.0], [0.0, 1.0, 1.0]])
    there = imgaug.WarpAffineTransform(mat, (40, 30))
    back = imgaug.WarpAffineTransform(mat, (40, 30), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert back.apply_coords(there.apply_coords(POINTS)) == pytest.approx(POINTS)


def test_a_list_applies_its_transforms_in_order_under_every_name() -> None:
    class Count(imgaug.Transform):
        def apply_image(self, img: np.ndarray) -> np.ndarray:
            return img + 1

        def apply_label(self, label: int) -> int:
            return label * 2

    double = imgaug.TransformFactory(
        name="double", apply_image=lambda img: img * 2, apply_label=lambda label: label + 1
    )
    tfm = imgaug.TransformList([Count()]) + double
    assert tfm.apply_image(GREY).tolist() == ((GREY + 1) * 2).tolist()
    assert tfm.apply_label(5) == 11
    assert (double + imgaug.TransformList([Count()])).apply_label(5) == 12
    tfm += imgaug.TransformList([imgaug.NoOpTransform(), Count()])
    assert tfm.apply_label(5) == 22
    with pytest.raises(NotImplementedError, match="Count does not implement apply_coords"):
        tfm.apply_coords(POINTS)


def test_a_transform_may_keep_its_arguments_as_tensorpacks_do() -> None:
    class Blacken(imgaug.Transform):
        def __init__(self, rows: int, columns: int = 1) -> None:
            super().__init__()
            self._init(locals())

        def apply_image(self, img: np.ndarray) -> np.ndarray:
            black = img.copy()
            black[: self.rows, : self.columns] = 0
            return black

    assert (Blacken(2, 3).apply_image(GREY + np.uint8(1)) == 0).sum() == 6
    assert repr(Blacken(2)) == "imgaug.Blacken(rows=2)"


def test_what_nobody_implements_is_told_when_it_is_called() -> None:
    for tfm in (imgaug.Transform(), imgaug.TransformFactory(name="nothing")):
        for name in ("apply_image", "apply_coords", "apply_segmentation"):
            with pytest.raises(NotImplementedError, match=f"{type(tfm).__name__} does not implement {name}"):
                getattr(tfm, name)(GREY)
        assert not hasattr(tfm, "segment")


def test_a_no_op_returns_what_it_gets() -> None:
    tfm = imgaug.NoOpTransform()
    assert tfm.apply_image(GREY) is GREY
    assert tfm.apply_coords(POINTS) is POINTS
    assert tfm.apply_anything(tfm) is tfm
    assert not hasattr(tfm, "anything")


def test_a_photometric_transform_leaves_points() -> None:
    tfm = imgaug.PhotometricTransform(lambda img: img + 1, "one more")
    assert (tfm.apply_image(GREY) == GREY + 1).all()
    assert tfm.apply_coords(POINTS) is POINTS
    assert repr(tfm) == "imgaug.PhotometricTransform(one more)"


def test_a_factory_takes_only_functions_that_apply() -> None:
    with pytest.raises(TypeError, match=r"'image'.*apply_<something>"):
        imgaug.TransformFactory(image=len)


def test_transforms_are_printed_as_the_calls_that_make_them() -> None:
    tfms = imgaug.TransformList([imgaug.CropTransform(1, 0, 2, 3), imgaug.FlipTransform(2, 3)])
    lines = [
        "imgaug.TransformList([",
        "  imgaug.CropTransform(y0=1, x0=0, h=2, w=3),",
        "  imgaug.FlipTransform(h=2, w=3)])",
    ]
    assert repr(tfms).splitlines() == lines


@pytest.mark.parametrize("tfm", [*GEOMETRIC, imgaug.TransformList(GEOMETRIC[:1]), imgaug.NoOpTransform()], ids=repr)
def test_transforms_travel(tfm: imgaug.Transform) -> None:
    arrived = pickle.loads(pickle.dumps(tfm))
    assert np.array_equal(arrived.apply_image(GREY), tfm.apply_image(GREY))
    assert np.array_equal(arrived.apply_coords(POINTS), tfm.apply_coords(POINTS))


def test_tensorpacks_module_of_transforms_has_its_names() -> None:
    assert transform.TransformAugmentorBase is imgaug.ImageAugmentor
    assert transform.TransformList is imgaug.TransformList
    with pytest.raises(AttributeError, match="NoSuchTransform"):
        _ = transform.NoSuchTransform
