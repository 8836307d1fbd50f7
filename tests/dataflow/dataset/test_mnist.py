"""MNIST and Fashion-MNIST from files in the published format, which is what tensorpack reads too."""

from __future__ import annotations

import gzip
import multiprocessing
import pickle
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.dataset import FashionMnist, Mnist
from dfserve.errors import ConfigError, DownloadError, StoreError

COUNT = {"train": 30, "t10k": 20}


def encode(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def contents() -> dict[str, bytes]:
    """The four files, by their published names without the suffix."""
    rng = np.random.RandomState(5)
    files = {}
    for split, count in COUNT.items():
        files[f"{split}-images-idx3-ubyte"] = encode(rng.randint(0, 256, (count, 28, 28), np.uint8))
        files[f"{split}-labels-idx1-ubyte"] = encode(rng.randint(0, 10, count, np.uint8))
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in contents().items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


@pytest.mark.parametrize("name", ["Mnist", "FashionMnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_it_yields_what_tensorpack_yields(folder: Path, tensorpack: ModuleType, name: str, split: str) -> None:
    import dfserve.dataflow.dataset as ours

    pair = [getattr(module, name)(split, dir=str(folder)) for module in (ours, tensorpack.dataset)]
    assert len(pair[0]) == len(pair[1]) == COUNT["train" if split == "train" else "t10k"]
    for ds in pair:
        assert ds.shuffle
        ds.reset_state()
        ds.rng = np.random.RandomState(7)
    for mine, theirs in zip(*pair, strict=True):
        for component, other in zip(mine, theirs, strict=True):
            assert (type(component), component.dtype, component.shape) == (type(other), other.dtype, other.shape)
            np.testing.assert_array_equal(component, other)


def test_label_names_are_those_of_tensorpack(folder: Path, tensorpack: ModuleType) -> None:
    theirs = tensorpack.dataset.FashionMnist("test", dir=str(folder))
    assert FashionMnist("test", dir=folder).get_label_names() == theirs.get_label_names()


def test_an_item_is_the_same_whatever_the_order_of_the_passes(folder: Path) -> None:
    ds = Mnist("train", dir=folder)
    ds.reset_state()
    images = [image for image, _ in (ds[index] for index in range(len(ds)))]
    passes = [[image for image, _ in ds] for _ in range(3)]
    assert all(sorted(map(bytes, images)) == sorted(map(bytes, order)) for order in passes)
    assert any(list(map(bytes, images)) != list(map(bytes, order)) for order in passes)
    np.testing.assert_array_equal(ds[-1][0], images[-1])
    with pytest.raises(IndexError):
        ds[len(ds)]
    assert [label for _, label in Mnist("train", False, folder)] == [ds[index][1] for index in range(len(ds))]


def test_changing_a_datapoint_changes_no_other(folder: Path) -> None:
    ds = Mnist("test", dir=folder)
    ds[0][0][:] = 2
    assert ds[0][0].max() <= 1


def test_files_that_were_gunzipped_are_read_too(folder: Path) -> None:
    before = Mnist("test", dir=folder)[3]
    for path in folder.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(Mnist("test", dir=folder)[3][0], before[0])


def _image(ds: Mnist, results: Any) -> None:
    results.put(ds[3][0].sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_travels_to_another_process(folder: Path, method: str) -> None:
    ds = Mnist("train", dir=folder)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=_image, args=(ds, results))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == ds[3][0].sum()


def test_a_pickle_of_it_is_small(folder: Path) -> None:
    ds = Mnist("train", dir=folder)
    copy = pickle.loads(pickle.dumps(ds))
    assert len(pickle.dumps(ds)) < 2000 < 30 * 28 * 28
    assert len(copy) == 30
    np.testing.assert_array_equal(copy[3][0], ds[3][0])


def test_images_and_labels_that_do_not_belong_together_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(encode(np.zeros(29, np.uint8)))
    with pytest.raises(StoreError, match=r"30 images, but .* has 29 labels"):
        Mnist("train", dir=folder)


def test_a_damaged_file_is_refused_with_its_name(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        Mnist("test", dir=folder)
    assert len(Mnist("train", dir=folder)) == 30


def test_another_split_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'val'; it is one of 'train', 'test'"):
        Mnist("val", dir=folder)


@pytest.mark.parametrize("variable", ["DFSERVE_DATASET", "TENSORPACK_DATASET", "XDG_CACHE_HOME", "HOME"])
def test_missing_files_are_downloaded_to_the_folder_of_the_environment(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    published = {name: server.publish(f"{name}.gz", gzip.compress(content)) for name, content in contents().items()}
    splits = {"train": "train", "test": "t10k"}
    files = {
        split: (published[f"{name}-images-idx3-ubyte"], published[f"{name}-labels-idx1-ubyte"])
        for split, name in splits.items()
    }
    monkeypatch.setattr(FashionMnist, "_FILES", files)
    for name in ("DFSERVE_DATASET", "TENSORPACK_DATASET", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"XDG_CACHE_HOME": "dfserve", "HOME": ".cache/dfserve"}.get(variable, "")
    assert len(FashionMnist("test")) == 20
    assert len(FashionMnist("test")) == 20
    assert sorted(path.name for path in (tmp_path / below / "fashion_mnist_data").iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    assert len(server.requests) == 2


def test_where_nothing_can_be_downloaded_the_error_says_what_to_do(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = server.publish("train-images-idx3-ubyte.gz", b"content")
    server.files.clear()
    monkeypatch.setattr(Mnist, "_FILES", {"train": (gone, gone)})
    with pytest.raises(DownloadError, match="put it at") as caught:
        Mnist("train", dir=tmp_path)
    assert str(tmp_path / "train-images-idx3-ubyte.gz") in str(caught.value)


def test_a_folder_in_the_place_of_shuffle_is_refused_before_anything_is_downloaded() -> None:
    with pytest.raises(ConfigError, match=r"shuffle is '/data', a text.*dir='/data'"):
        Mnist("train", "/data")  # type: ignore[arg-type]
