"""What Caffe's authors published about ILSVRC12: read as tensorpack reads it, downloaded where it is missing."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.dataset import ILSVRC12Files, ILSVRCMeta, caffe
from dfserve.errors import ConfigError, DownloadError, StoreError

MEAN = np.random.RandomState(4).uniform(0, 255, (3, 256, 256)).astype("<f4")
# A BlobProto: num 1, channels 3, height 256, width 256, then 786,432 bytes of packed floats.
MEAN_FILE = bytes.fromhex("0801 1003 188002 208002 2a808030") + MEAN.tobytes()
FILES = {
    "synsets.txt": b"n01440764\nn01443537\n",
    "synset_words.txt": b"n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n",
    "train.txt": b"n01440764/n01440764_10026.JPEG 0\nn01443537/n01443537_1.JPEG 1\n",
    "val.txt": b"ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 0\n",
    "test.txt": b"ILSVRC2012_test_00000001.JPEG 0\n",
    "imagenet_mean.binaryproto": MEAN_FILE,
}


@pytest.fixture
def meta_dir(tmp_path: Path) -> Path:
    (tmp_path / "meta").mkdir()
    for name, content in FILES.items():
        (tmp_path / "meta" / name).write_bytes(content)
    return tmp_path / "meta"


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def caffes(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Publish Caffe's archive on the test's server, and return the folder where it goes by default."""
    monkeypatch.setattr(caffe, "CAFFE_ILSVRC12", server.publish("caffe_ilsvrc12.tar.gz", archive_of(FILES)))
    monkeypatch.setenv("DFSERVE_DATASET", str(tmp_path / "data"))
    return tmp_path / "data" / "ilsvrc_metadata"


# tensorpack leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_it_says_what_tensorpacks_says(meta_dir: Path, tensorpack: ModuleType) -> None:
    ours, theirs = ILSVRCMeta(meta_dir), tensorpack.dataset.ILSVRCMeta(str(meta_dir))
    assert ours.get_synset_words_1000() == theirs.get_synset_words_1000()
    assert ours.get_synset_1000() == theirs.get_synset_1000() == {0: "n01440764", 1: "n01443537"}
    for name in ("train", "val", "test"):
        for structure in ("original", "train"):
            assert ours.get_image_list(name, structure) == theirs.get_image_list(name, structure)


def test_other_arguments_are_refused(meta_dir: Path) -> None:
    with pytest.raises(ConfigError, match="'dev'"):
        ILSVRCMeta(meta_dir).get_image_list("dev")
    with pytest.raises(ConfigError, match="'flat'"):
        ILSVRCMeta(meta_dir).get_image_list("val", "flat")


def test_the_mean_image_is_that_of_the_file_and_resized_on_demand(meta_dir: Path) -> None:
    mean = ILSVRCMeta(meta_dir).get_per_pixel_mean()
    assert (mean.dtype, mean.shape) == (np.dtype("float32"), (256, 256, 3))
    np.testing.assert_array_equal(mean, MEAN.transpose(1, 2, 0))
    pytest.importorskip("cv2")
    assert ILSVRCMeta(meta_dir).get_per_pixel_mean((20, 30)).shape == (20, 30, 3)


@pytest.mark.parametrize(
    "content",
    [b"", MEAN_FILE[:8], MEAN_FILE[:14], MEAN_FILE[:-1], b"\xff" * 100, bytes.fromhex("2a04") + b"1234", b"\x29" * 50],
)
def test_a_damaged_mean_image_is_refused_with_its_name(meta_dir: Path, content: bytes) -> None:
    (meta_dir / "imagenet_mean.binaryproto").write_bytes(content)
    with pytest.raises(StoreError, match=r"imagenet_mean\.binaryproto"):
        ILSVRCMeta(meta_dir).get_per_pixel_mean()


def test_the_structure_of_a_folder_is_found(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    assert ILSVRCMeta.guess_dir_structure(photographs / "train") == "train"
    assert ILSVRCMeta.guess_dir_structure(str(tmp_path)) == "original"


def test_missing_files_are_downloaded_and_those_that_are_there_are_kept(server: Any, caffes: Path) -> None:
    caffes.mkdir(parents=True)
    (caffes / "val.txt").write_text("mine.JPEG 1\n")
    meta = ILSVRCMeta()
    assert meta.get_synset_1000() == {0: "n01440764", 1: "n01443537"}
    assert meta.get_image_list("val") == [("mine.JPEG", 1)]
    assert meta.get_image_list("test") == [("ILSVRC2012_test_00000001.JPEG", 0)]
    assert len(server.requests) == 1


@pytest.fixture
def flat(photographs: Path, tmp_path: Path) -> Path:
    """An ImageNet folder as it is published: the validation images lie in one folder."""
    root = Path(shutil.copytree(photographs, tmp_path / "imagenet"))
    (root / "val").mkdir()
    for number, file in enumerate(sorted((root / "train" / "n01443537").iterdir())[:2], 1):
        shutil.copy(file, root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return root


def test_the_labels_of_published_validation_images_are_downloaded(server: Any, caffes: Path, flat: Path) -> None:
    for _ in range(2):
        ds = ILSVRC12Files(flat, "val")
        assert [(Path(file).name, label) for file, label in ds] == [
            ("ILSVRC2012_val_00000001.JPEG", 1),
            ("ILSVRC2012_val_00000002.JPEG", 0),
        ]
    assert len(server.requests) == 1


def test_where_they_cannot_be_downloaded_the_error_says_what_else_to_do(server: Any, caffes: Path, flat: Path) -> None:
    server.files.clear()
    with pytest.raises(DownloadError, match="meta_dir") as caught:
        ILSVRC12Files(flat, "val")
    for part in (str(flat / "val"), "val.txt", str(caffes / "caffe_ilsvrc12.tar.gz"), "404"):
        assert part in str(caught.value)


def test_a_folder_without_images_downloads_nothing(server: Any, caffes: Path, flat: Path) -> None:
    (flat / "test").mkdir()
    with pytest.raises(ConfigError, match="no images"):
        ILSVRC12Files(flat, "test")
    assert server.requests == []
