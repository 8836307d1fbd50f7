"""TinyImageNet from a folder in the published layout, which is what tensorpack reads too."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.dataset import TinyImageNet, tiny_imagenet
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError, DownloadError, StoreError, TooManyErrors

CLASSES = [f"n{number:08d}" for number in np.random.RandomState(1).permutation(200)]
FOLDER = "tiny-imagenet-200"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published folder, with two images a class for training and 20 for validation. Not to be changed."""
    cv2 = pytest.importorskip("cv2")
    root = tmp_path_factory.mktemp("published") / FOLDER
    rng = np.random.RandomState(2)
    encoded = [
        cv2.imencode(".jpg", cv2.resize(rng.randint(0, 256, (4, 4, 3), np.uint8), (64, 64)))[1].tobytes()
        for _ in range(4)
    ]
    for number, name in enumerate(CLASSES):
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        for image in range(2):
            (images / f"{name}_{image}.JPEG").write_bytes(encoded[(number + image) % 4])
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
    (root / "wnids.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (root / "val" / "images").mkdir(parents=True)
    with (root / "val" / "val_annotations.txt").open("w") as annotations:
        for number in range(20):
            (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(encoded[number % 4])
            annotations.write(f"val_{number}.JPEG\t{CLASSES[number * 7]}\t0\t32\t44\t62\n")
    return root


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(published, tmp_path / FOLDER))


@pytest.mark.parametrize("name", ["train", "val"])
def test_it_yields_what_tensorpack_yields(published: Path, tensorpack: ModuleType, name: str) -> None:
    ours = TinyImageNet(published, name, False)
    theirs = tensorpack.dataset.TinyImageNet(str(published), name, False)
    theirs.imglist = ours.imglist if name == "train" else theirs.imglist  # theirs is in the order of the disk
    assert len(ours) == len(theirs) == (400 if name == "train" else 20)
    for (image, label), (their_image, their_label) in zip(ours, theirs, strict=True):
        assert (type(label), label, image.dtype, image.shape) == (int, their_label, np.dtype("uint8"), (64, 64, 3))
        np.testing.assert_array_equal(image, their_image)


def test_the_lists_agree_with_tensorpacks(published: Path, tensorpack: ModuleType) -> None:
    for name in ("train", "val"):
        theirs = tensorpack.dataset.TinyImageNet(str(published), name)
        assert sorted(TinyImageNet(published, name).imglist) == sorted(theirs.imglist)
        assert TinyImageNet(published, name).shuffle is theirs.shuffle


def test_a_label_is_the_place_of_the_class_in_wnids(published: Path) -> None:
    ds = TinyImageNet(published, "train")
    assert [label for _, label in ds.imglist] == [label for label in range(200) for _ in range(2)]
    assert all(CLASSES[label] == Path(path).parts[-3] for path, label in ds.imglist)
    assert [label for _, label in TinyImageNet(published, "val").imglist] == [number * 7 for number in range(20)]


def test_an_item_is_the_same_whatever_the_order_and_the_process(published: Path) -> None:
    ds = TinyImageNet(published.parent, "train")  # the folder that holds it does too
    ds.reset_state()
    passed = [label for _, label in ds]
    assert passed != sorted(passed)
    assert sorted(passed) == [ds[index][1] for index in range(400)]
    copy = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(copy[7][0], ds[7][0])
    np.testing.assert_array_equal(ds[-393][0], ds[7][0])


def test_an_unreadable_image_is_an_error_that_names_it_or_is_skipped(folder: Path, tmp_path: Path) -> None:
    bad = folder / "val" / "images" / "val_3.JPEG"
    bad.write_bytes(b"no image")
    with pytest.raises(DatapointError, match="a damaged one") as caught:
        list(TinyImageNet(folder, "val"))
    assert key_of(caught.value) == str(bad)
    skipping = TinyImageNet(folder, "val", on_error=SkipErrors(quarantine=tmp_path / "bad.jsonl"))
    assert len(list(skipping)) == 19
    assert str(bad) in (tmp_path / "bad.jsonl").read_text()
    with pytest.raises(TooManyErrors):
        list(TinyImageNet(folder, "val", on_error=SkipErrors(total=0)))


def test_a_file_name_may_be_other_than_utf_8(folder: Path) -> None:
    name = b"sch\xf6n.JPEG"
    (folder / "val" / "images" / "val_0.JPEG").rename(folder / "val" / "images" / os.fsdecode(name))
    annotations = folder / "val" / "val_annotations.txt"
    annotations.write_bytes(annotations.read_bytes().replace(b"val_0.JPEG", name))
    assert TinyImageNet(folder, "val")[0][1] == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "train" / CLASSES[5]), "199 classes.*" + CLASSES[5]),
        (lambda root: (root / "train" / "n77" / "images").mkdir(parents=True), "201 classes.*n77"),
        (lambda root: (root / "wnids.txt").write_text("\n".join(CLASSES + CLASSES[:1])), "201 classes, 200 different"),
        (lambda root: (root / "wnids.txt").write_text(""), "0 classes"),
        (lambda root: shutil.rmtree(root / "train"), "images of 0 classes"),
        (lambda root: [path.unlink() for path in root.glob("train/*/images/*")], "no images in"),
    ],
)
def test_a_train_folder_that_is_incomplete_is_refused(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        TinyImageNet(folder, "train")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda val: (val / "val_annotations.txt").unlink(), "no .*val_annotations"),
        (lambda val: (val / "val_annotations.txt").write_text("val_0.JPEG\tn1\n"), "line 1: 'val_0.JPEG.tn1' does not"),
        (lambda val: (val / "val_annotations.txt").write_text("val_0.JPEG"), "line 1"),
        (lambda val: (val / "val_annotations.txt").write_text(""), "no images"),
        (lambda val: (val / "images" / "val_4.JPEG").unlink(), r"no .*val_4\.JPEG"),
    ],
)
def test_a_val_folder_that_is_incomplete_is_refused(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder / "val")
    with pytest.raises(ConfigError, match=message):
        TinyImageNet(folder, "val")


def test_other_folders_and_names_are_refused_and_nothing_is_downloaded_to_them(
    server: Any, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_imagenet, "TINY_IMAGENET", server.publish(f"{FOLDER}.zip", b""))
    with pytest.raises(ConfigError, match=r"is not TinyImageNet: .* but train"):
        TinyImageNet(photographs, "train")
    with pytest.raises(ConfigError, match=r"no folder .*missing"):
        TinyImageNet(tmp_path / "missing", "train")
    with pytest.raises(ConfigError, match="'test'; it is one of 'train', 'val'"):
        TinyImageNet(tmp_path, "test")
    assert server.requests == []


def zipped(root: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, Path(FOLDER, path.relative_to(root)))
        archive.writestr("../outside.txt", "bad")
        archive.writestr(f"{FOLDER}/../../outside.txt", "bad")
    return buffer.getvalue()


def test_it_is_downloaded_to_an_empty_folder_and_unpacked_once(
    server: Any, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.publish(f"{FOLDER}.zip", zipped(published))
    monkeypatch.setattr(tiny_imagenet, "TINY_IMAGENET", file)
    (tmp_path / "data").mkdir()
    assert len(TinyImageNet(tmp_path / "data", "train")) == 400
    assert len(TinyImageNet(tmp_path / "data", "val")) == 20
    assert len(server.requests) == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [FOLDER, f"{FOLDER}.zip"]
    assert not (tmp_path / "outside.txt").exists()
    # An archive that was put there by hand will do, beside what a download or an unpacking that was killed left.
    (tmp_path / "data" / FOLDER).rename(tmp_path / "data" / f".{FOLDER}.0123")
    assert len(TinyImageNet(tmp_path / "data", "val")) == 20
    assert len(server.requests) == 1


def test_an_archive_that_is_none_is_refused(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    for content, message in ((b"no zip", "is damaged"), (empty.getvalue(), f"has no folder {FOLDER}")):
        monkeypatch.setattr(tiny_imagenet, "TINY_IMAGENET", server.publish(f"{FOLDER}.zip", content))
        with pytest.raises(StoreError, match=message):
            TinyImageNet(tmp_path, "train")
        (tmp_path / f"{FOLDER}.zip").unlink()
        assert not list(tmp_path.iterdir())
    server.files.clear()
    with pytest.raises(DownloadError, match=f"put it at .*{FOLDER}.zip"):
        TinyImageNet(tmp_path, "train")
