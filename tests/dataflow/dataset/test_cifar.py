"""CIFAR-10 and CIFAR-100 from files in the published binary format, beside tensorpack on the same images pickled."""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.dataset import Cifar10, Cifar100, CifarBase, cifar
from dfserve.errors import ConfigError, DownloadError, StoreError

FOLDER = {10: "cifar-10-batches-bin", 100: "cifar-100-binary"}
FILES = {
    10: {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]},
    100: {"train": ["train.bin"], "test": ["test.bin"]},
}
NAMES = {10: "batches.meta.txt", 100: "fine_label_names.txt"}
FEW = 7  # records in a file, where the published number does not matter


def records(classes: int, count: int, seed: int = 0) -> np.ndarray:
    """Random records of the published layout: for 100 classes a coarse label comes first."""
    rng = np.random.RandomState(seed)
    labels = [rng.randint(0, 20, (count, 1), np.uint8)] if classes == 100 else []
    return np.hstack(
        [*labels, rng.randint(0, classes, (count, 1), np.uint8), rng.randint(0, 256, (count, 3072), np.uint8)]
    )


def label_names(classes: int) -> list[str]:
    return [f"class_{label}" for label in range(classes)]


def write(folder: Path, classes: int, count: int = FEW) -> dict[str, np.ndarray]:
    """Write all files, and return the records of each split."""
    folder.mkdir(parents=True)
    (folder / NAMES[classes]).write_text("\n".join(label_names(classes)) + "\n\n")
    written: dict[str, np.ndarray] = {}
    for split, files in FILES[classes].items():
        parts = [records(classes, count, seed=seed) for seed, _ in enumerate(files)]
        for file, part in zip(files, parts, strict=True):
            (folder / file).write_bytes(part.tobytes())
        written[split] = np.concatenate(parts)
    return written


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few records count as whole."""
    for classes, version in cifar._VERSIONS.items():
        monkeypatch.setitem(cifar._VERSIONS, classes, replace(version, records={"train": FEW, "test": FEW}))


def pickled(folder: Path, classes: int, written: np.ndarray) -> None:
    """Write the test split as the published python version has it."""
    folder.mkdir()
    start = 1 if classes == 10 else 2
    content = {
        b"labels" if classes == 10 else b"fine_labels": written[:, start - 1].tolist(),
        b"data": np.ascontiguousarray(written[:, start:]),
    }
    (folder / ("test_batch" if classes == 10 else "test")).write_bytes(pickle.dumps(content, protocol=2))
    names = {"label_names" if classes == 10 else "fine_label_names": label_names(classes)}
    (folder / ("batches.meta" if classes == 10 else "meta")).write_bytes(pickle.dumps(names, protocol=2))


# tensorpack leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(("name", "classes"), [("Cifar10", 10), ("Cifar100", 100)])
def test_it_yields_what_tensorpack_yields(tmp_path: Path, tensorpack: ModuleType, name: str, classes: int) -> None:
    written = records(classes, 10_000)
    (tmp_path / FOLDER[classes]).mkdir()
    (tmp_path / FOLDER[classes] / FILES[classes]["test"][0]).write_bytes(written.tobytes())
    (tmp_path / FOLDER[classes] / NAMES[classes]).write_text("\n".join(label_names(classes)))
    pickled(tmp_path / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python"), classes, written)
    ours = {"Cifar10": Cifar10, "Cifar100": Cifar100}[name]("test", True, str(tmp_path))
    theirs = getattr(tensorpack.dataset, name)("test", True, str(tmp_path))
    assert len(ours) == len(theirs) == 10_000
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(7)
    images, labels = zip(*ours, strict=True)
    their_images, their_labels = zip(*theirs, strict=True)
    assert labels == their_labels
    assert {type(label) for label in labels} == {type(label) for label in their_labels} == {int}
    assert {(image.dtype, image.shape) for image in images} == {(image.dtype, image.shape) for image in their_images}
    np.testing.assert_array_equal(np.stack(images), np.stack(their_images))
    for method in ("get_per_pixel_mean", "get_per_channel_mean"):
        mine, other = (getattr(ds, method)(("test",)) for ds in (ours, theirs))
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    assert ours.get_label_names() == theirs.get_label_names()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("below", ["", "folder"])
def test_items_are_the_records_of_the_files_in_order(tmp_path: Path, classes: int, below: str) -> None:
    """The files may lie in the folder that is named, or where unpacking the archive in it puts them."""
    root = tmp_path / "data"
    written = write(root / FOLDER[classes] if below else root, classes)
    for split, rows in written.items():
        ds = CifarBase(split, None, root, classes)
        assert len(ds) == len(rows)
        assert ds.shuffle is (split == "train")
        for index, row in enumerate(rows):
            image, label = ds[index]
            assert label == row[0 if classes == 10 else 1]
            assert [image[0, 0].tolist(), image[31, 31].tolist()] == [
                row[-3072::1024].tolist(),
                row[-2049::1024].tolist(),
            ]
            assert image[0, 1, 0] == row[-3071]
        np.testing.assert_array_equal(ds[-1][0], ds[len(ds) - 1][0])
        with pytest.raises(IndexError):
            ds[len(ds)]


@pytest.mark.usefixtures("few")
def test_the_mean_is_over_the_splits_that_are_named(tmp_path: Path) -> None:
    written = write(tmp_path / FOLDER[10], 10)
    ds = Cifar10("test", dir=tmp_path)
    pixels = np.concatenate([written["train"], written["test"]])[:, 1:].astype(float)
    expected = pixels.mean(axis=0).reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_allclose(ds.get_per_pixel_mean(), expected, rtol=1e-6)
    np.testing.assert_allclose(ds.get_per_channel_mean(), expected.mean(axis=(0, 1)), rtol=1e-6)
    for names in ("train", (), ("val",)):
        with pytest.raises(ConfigError):
            ds.get_per_pixel_mean(names)


@pytest.mark.usefixtures("few")
def test_a_pass_is_a_permutation_and_its_images_are_the_callers_own(tmp_path: Path) -> None:
    write(tmp_path / FOLDER[10], 10)
    ds = Cifar10("train", dir=tmp_path)
    ds.reset_state()
    passed = sorted(image.tobytes() for image, _ in ds)
    assert passed == sorted(ds[index][0].tobytes() for index in range(len(ds)))
    image = ds[0][0]
    before = image.copy()
    image += 1
    np.testing.assert_array_equal(ds[0][0], before)
    assert image.flags.c_contiguous


@pytest.mark.usefixtures("few")
def test_a_pickle_of_it_names_the_files_only(tmp_path: Path) -> None:
    write(tmp_path / FOLDER[100], 100)
    ds = Cifar100("train", dir=tmp_path)
    copy = pickle.loads(pickle.dumps(ds))
    assert len(pickle.dumps(ds)) < 3000
    np.testing.assert_array_equal(copy[5][0], ds[5][0])


@pytest.mark.parametrize("size", [0, 3073 * 9999, 3073 * 10000 - 1, 3073 * 10001])
def test_a_file_of_another_size_than_the_published_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / FOLDER[10]).mkdir()
    with (tmp_path / FOLDER[10] / "test_batch.bin").open("wb") as file:
        file.truncate(size)
    with pytest.raises(StoreError, match=rf"test_batch\.bin has {size:,} bytes; .* so 30,730,000"):
        Cifar10("test", dir=tmp_path)


@pytest.mark.usefixtures("few")
def test_a_label_that_is_none_is_refused_with_its_record(tmp_path: Path) -> None:
    rows = write(tmp_path / FOLDER[10], 10)["test"]
    rows[3, 0] = 10
    (tmp_path / FOLDER[10] / "test_batch.bin").write_bytes(rows.tobytes())
    ds = Cifar10("test", dir=tmp_path)
    assert ds[2][1] < 10
    with pytest.raises(StoreError, match=r"test_batch\.bin .* label of record 3 is 10, of 10 classes"):
        ds[3]


@pytest.mark.usefixtures("few")
def test_label_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path / FOLDER[10], 10)
    (tmp_path / FOLDER[10] / NAMES[10]).write_text("cat\ndog\n")
    with pytest.raises(StoreError, match="2 names for 10 labels"):
        Cifar10("test", dir=tmp_path).get_label_names()


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'val'"):
        Cifar10("val", dir=tmp_path)
    with pytest.raises(ConfigError, match="cifar_classnum is 20"):
        CifarBase("train", None, tmp_path, 20)


def archive_of(folder: Path) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(folder, folder.name)
            outside = tarfile.TarInfo("../outside.bin")
            outside.size = 3
            tar.addfile(outside, io.BytesIO(b"bad"))
        return buffer.getvalue()


def publish(server: Any, monkeypatch: pytest.MonkeyPatch, classes: int, content: bytes) -> None:
    version = cifar._VERSIONS[classes]
    monkeypatch.setitem(
        cifar._VERSIONS, classes, replace(version, archive=server.publish(version.archive.name, content))
    )


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("classes", [10, 100])
def test_what_is_missing_is_downloaded_and_unpacked_once(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    written = write(tmp_path / "origin" / FOLDER[classes], classes)
    publish(server, monkeypatch, classes, archive_of(tmp_path / "origin" / FOLDER[classes]))
    monkeypatch.setenv("DFSERVE_DATASET", str(tmp_path / "data"))
    for split in ("train", "test"):
        ds = CifarBase(split, False, cifar_classnum=classes)
        assert [label for _, label in ds] == written[split][:, 0 if classes == 10 else 1].tolist()
    assert ds.get_label_names() == label_names(classes)
    assert len(server.requests) == 1
    root = tmp_path / "data" / f"cifar{classes}_data"
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [FOLDER[classes], cifar._VERSIONS[classes].archive.name]
    )
    files = sorted(path.name for path in (root / FOLDER[classes]).iterdir())
    assert files == sorted([*FILES[classes]["train"], *FILES[classes]["test"], NAMES[classes]])
    assert not list(tmp_path.rglob("outside.bin"))


@pytest.mark.usefixtures("few")
def test_an_archive_without_the_files_is_refused(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    for content in (archive_of(tmp_path / "other"), archive_of(tmp_path / "other")[:-30], b"no archive"):
        publish(server, monkeypatch, 10, content)
        (tmp_path / "data" / "cifar-10-binary.tar.gz").unlink(missing_ok=True)
        with pytest.raises(
            StoreError, match=r"cifar-10-binary\.tar\.gz (has no batches\.meta\.txt, data_batch_1\.bin|is damaged)"
        ):
            Cifar10("train", dir=tmp_path / "data")


class _Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_the_python_version_is_never_loaded_and_the_error_says_why(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in ("test_batch", "batches.meta"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(_Bomb()))
    publish(server, monkeypatch, 10, b"gone")
    server.files.clear()
    with pytest.raises(DownloadError, match="pickle can run any code") as caught:
        Cifar10("test", dir=tmp_path)
    assert str(tmp_path / "cifar-10-binary.tar.gz") in str(caught.value)
