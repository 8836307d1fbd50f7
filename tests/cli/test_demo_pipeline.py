"""The demo's pipeline, and the photographs that it runs on by default."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dfserve.cli.demo_pipeline import augment, class_names, make, open_photos
from dfserve.cli.photos import PHOTOS, cut_photos
from dfserve.errors import ConfigError


def write_photo(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((40, 60, 3), grey, np.uint8))


def test_the_default_photographs_make_an_imagenet_shaped_folder_that_is_the_same_each_time(tmp_path: Path) -> None:
    written = cut_photos(tmp_path / "a", cuts=2)
    cut_photos(tmp_path / "b", cuts=2)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.JPEG"))
    assert len(files) == written > 2 * len(PHOTOS) // 2
    assert {file.parts[0] for file in files} == {"train"}
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    photos = open_photos(tmp_path / "a")
    assert len(photos) == written
    assert set(class_names(photos).values()) == {file.parent.name for file in files}


def test_subfolders_of_any_folder_are_its_classes(tmp_path: Path) -> None:
    write_photo(tmp_path / "trip" / "cats" / "x.jpg", 10)
    write_photo(tmp_path / "dogs" / "y.PNG", 20)
    write_photo(tmp_path / "z.jpeg", 30)
    (tmp_path / "dogs" / "._y.PNG").write_bytes(b"what macOS leaves beside a file")
    photos = open_photos(tmp_path)
    photos.reset_state()
    names = class_names(photos)
    assert {(names[label], int(image.mean().round())) for image, label in photos} == {
        ("cats", 10),
        ("dogs", 20),
        (tmp_path.name, 30),
    }


def test_a_folder_that_has_its_photographs_in_train_itself_will_do(tmp_path: Path) -> None:
    write_photo(tmp_path / "train" / "x.jpg", 10)
    assert len(open_photos(tmp_path)) == 1


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="no photographs below"):
        open_photos(tmp_path)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (224, 224, 3), (500, 333, 3)])
def test_augmented_images_are_224_pixels_square_whatever_they_were(shape: tuple[int, ...]) -> None:
    image, label = augment([np.zeros(shape, np.uint8), 3])
    assert (image.shape, image.dtype, label) == ((224, 224, 3), np.dtype("uint8"), 3)


def test_every_datapoint_is_signed_with_its_producer_and_a_number_that_goes_on_over_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFSERVE_NAME", "data-9")
    for number in range(3):
        write_photo(tmp_path / f"{number}.jpg", number)
    pipeline = make(str(tmp_path))
    pipeline.reset_state()
    signatures = [datapoint[2:] for _ in range(2) for datapoint in pipeline]
    assert signatures == [["data-9", number] for number in range(6)]


def test_a_pipeline_whose_time_is_up_ends(tmp_path: Path) -> None:
    write_photo(tmp_path / "x.jpg", 10)
    pipeline = make(str(tmp_path), seconds=0)
    pipeline.reset_state()
    assert list(pipeline) == []
