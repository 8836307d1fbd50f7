"""ImageNet-shaped folders of real photographs, read as file names and as images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.dataset import ILSVRC12, ILSVRC12Files
from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError, TooManyErrors

SYNSETS = ["n01440764", "n01443537"]


@pytest.fixture
def folder(photographs: Path, tmp_path: Path) -> Path:
    """A copy of the photographs that a test may change."""
    return Path(shutil.copytree(photographs, tmp_path / "imagenet"))


def relative(ds: ILSVRC12Files) -> list[tuple[str, int]]:
    return [(os.path.relpath(file, ds.full_dir), label) for file, label in ds]


def test_labels_are_the_places_of_the_sorted_synset_folders(photographs: Path) -> None:
    assert relative(ILSVRC12Files(photographs, "train", shuffle=False)) == [
        ("n01440764/n01440764_astronaut.JPEG", 0),
        ("n01440764/n01440764_chelsea.JPEG", 0),
        ("n01443537/n01443537_coffee.JPEG", 1),
        ("n01443537/n01443537_retina.JPEG", 1),
        ("n01443537/n01443537_rocket.JPEG", 1),
    ]


def test_an_item_is_the_same_whatever_the_order_of_the_passes(photographs: Path) -> None:
    ds = ILSVRC12Files(photographs, "train")
    items = [ds[index] for index in range(len(ds))]
    ds.reset_state()
    passes = [list(ds) for _ in range(20)]
    assert any(datapoints != items for datapoints in passes)
    assert all(sorted(datapoints) == items for datapoints in passes)
    assert [ds[index] for index in range(len(ds))] == items


def test_images_are_those_that_were_stored_in_bgr(photographs: Path) -> None:
    data = pytest.importorskip("skimage.data")
    ds = ILSVRC12(photographs, "train", shuffle=False)
    image, label = next(iter(ds))
    assert (image.dtype, image.shape, label) == (np.dtype("uint8"), (256, 256, 3), 0)
    photo = data.astronaut()[::2, ::2, ::-1].astype(float)
    assert abs(image - photo).mean() < 12
    assert abs(image[:, :, ::-1] - photo).mean() > 20


def test_both_suffix_spellings_count_and_other_files_do_not(folder: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    synset = folder / "train" / SYNSETS[0]
    for name in ("a.jpg", "b.PNG", "c.jpeg", "d.Jpg"):
        assert cv2.imwrite(str(synset / name), np.full((4, 6), 7, "uint8"))
    for name in ("notes.txt", "._a.jpg", "e.jpg.tmp"):
        (synset / name).write_text("no image")
    (folder / "train" / "README").write_text("no synset")
    ds = ILSVRC12(folder, "train", shuffle=False)
    names = [Path(ILSVRC12Files.__getitem__(ds, index)[0]).name for index in range(len(ds))]
    assert names[:4] == ["a.jpg", "b.PNG", "c.jpeg", "d.Jpg"]
    assert len(names) == 9
    assert ds[1][0].shape == (4, 6, 3)


def test_train_and_only_train_is_shuffled_by_default(folder: Path) -> None:
    shutil.copytree(folder / "train", folder / "val")
    assert ILSVRC12Files(folder, "train").shuffle
    assert not ILSVRC12Files(folder, "val").shuffle
    assert ILSVRC12Files(folder, "val", shuffle=True).shuffle


def test_val_with_a_folder_per_synset_has_the_labels_of_train(folder: Path) -> None:
    shutil.copytree(folder / "train" / SYNSETS[1], folder / "val" / SYNSETS[1])
    assert {label for _, label in ILSVRC12Files(folder, "val")} == {1}


def test_a_val_folder_that_train_does_not_have_is_refused(folder: Path) -> None:
    (folder / "val" / "n99999999").mkdir(parents=True)
    with pytest.raises(ConfigError, match="n99999999"):
        ILSVRC12Files(folder, "val")


def test_synsets_txt_gives_the_labels_where_it_lies(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "synsets.txt").write_text("\n".join(["n00000001", *SYNSETS[::-1]]) + "\n")
    assert {label for _, label in ILSVRC12Files(folder, "train", shuffle=False)} == {0, 1}
    labelled = ILSVRC12Files(folder, "train", meta_dir=tmp_path / "meta", shuffle=False)
    assert sorted({label for _, label in labelled}) == [1, 2]
    assert labelled[0][1] == 2


def test_flat_val_takes_its_labels_from_val_txt(folder: Path) -> None:
    (folder / "val").mkdir()
    for number, file in enumerate(sorted((folder / "train" / SYNSETS[1]).iterdir())):
        shutil.copy(file, folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    (folder / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\nILSVRC2012_val_00000000.JPEG 970\n\n")
    assert relative(ILSVRC12Files(folder, "val")) == [
        ("ILSVRC2012_val_00000001.JPEG", 65),
        ("ILSVRC2012_val_00000000.JPEG", 970),
    ]


def test_a_label_file_may_have_names_that_are_not_utf_8(folder: Path) -> None:
    name = b"sch\xf6n.JPEG"
    (folder / "val").mkdir()
    shutil.copy(next((folder / "train").rglob("*.JPEG")), folder / "val" / os.fsdecode(name))
    (folder / "val.txt").write_bytes(name + b" 65\n")
    ds = ILSVRC12(folder, "val", folder, dir_structure="original")
    assert [label for _, label in ds] == [65]
    assert os.fsencode(ds.imglist[0][0]).endswith(name)


def test_flat_val_without_val_txt_is_refused_and_says_where_it_looked(folder: Path, tmp_path: Path) -> None:
    (folder / "val").mkdir()
    shutil.copy(next((folder / "train" / SYNSETS[0]).iterdir()), folder / "val")
    (tmp_path / "meta").mkdir()
    with pytest.raises(ConfigError, match=r"val\.txt") as caught:
        ILSVRC12Files(folder, "val", meta_dir=tmp_path / "meta")
    assert str(tmp_path / "meta") in str(caught.value)
    assert str(folder) in str(caught.value)


# tensorpack leaves the label files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", ["train", "val"])
def test_caffes_label_files_are_read_as_tensorpack_reads_them(folder: Path, tensorpack: ModuleType, name: str) -> None:
    meta = folder / "meta"
    meta.mkdir()
    (meta / "synsets.txt").write_text("".join(f"{synset}\n" for synset in SYNSETS))
    lines: list[str] = []
    for label, synset in enumerate(SYNSETS):
        shutil.copytree(folder / "train" / synset, folder / "val" / synset)
        prefix = f"{synset}/" if name == "train" else ""
        lines += [f"{prefix}{file.name} {label}" for file in (folder / "train" / synset).iterdir()]
    (meta / f"{name}.txt").write_text("\n".join(lines) + "\n")
    arguments: dict[str, Any] = {"meta_dir": str(meta), "shuffle": True, "dir_structure": "train"}
    ours = ILSVRC12Files(folder, name, **arguments)
    theirs = tensorpack.dataset.ILSVRC12Files(str(folder), name, **arguments)
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(5)
    assert ours.imglist == theirs.imglist
    assert list(ours) == list(theirs)
    assert len(list(ours)) == 5


def test_a_label_file_that_does_not_fit_the_folder_is_refused(folder: Path) -> None:
    (folder / "train.txt").write_text(f"{SYNSETS[0]}/not_there.JPEG 0\n")
    with pytest.raises(ConfigError, match=r"not_there\.JPEG"):
        ILSVRC12Files(folder, "train")


@pytest.mark.parametrize("line", ["only_a_name.JPEG", "a.JPEG cat", "a.JPEG 7"])
def test_a_malformed_label_file_is_refused_with_its_line(folder: Path, line: str) -> None:
    (folder / "val" / SYNSETS[0]).mkdir(parents=True)
    (folder / "synsets.txt").write_text("\n".join(SYNSETS))
    (folder / "val.txt").write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=r"val\.txt, line 2"):
        ILSVRC12Files(folder, "val", dir_structure="train")


def test_folders_and_names_that_do_not_exist_are_refused(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*val"):
        ILSVRC12Files(photographs, "val")
    with pytest.raises(ConfigError, match="no folder"):
        ILSVRC12Files(photographs, "train", meta_dir=tmp_path / "missing")
    with pytest.raises(ConfigError, match="'training'"):
        ILSVRC12Files(photographs, "training")
    with pytest.raises(ConfigError, match="'flat'"):
        ILSVRC12Files(photographs, "train", dir_structure="flat")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no images"):
        ILSVRC12Files(tmp_path / "empty", "train")


@pytest.mark.parametrize(
    ("content", "why"), [(b"this is no JPEG", "a damaged one"), (b"", "empty"), (None, "No such file")]
)
def test_an_unreadable_file_is_an_error_that_names_it(folder: Path, content: bytes | None, why: str) -> None:
    ds = ILSVRC12(folder, "train", shuffle=False)
    bad = folder / "train" / ds.imglist[2][0]
    bad.unlink()
    if content is not None:
        bad.write_bytes(content)
    images = iter(ds)
    assert next(images)[0].ndim == next(images)[0].ndim == 3
    with pytest.raises(DatapointError, match=why) as caught:
        next(images)
    assert str(bad) in str(caught.value)
    assert key_of(caught.value) == str(bad)


def test_the_folder_is_listed_once_when_the_object_is_made(folder: Path) -> None:
    ds = ILSVRC12Files(folder, "train", shuffle=False)
    before = list(ds)
    shutil.rmtree(folder)
    ds.reset_state()
    assert list(ds) == before


def test_a_reader_of_ones_own_may_build_on_the_file_names(photographs: Path) -> None:
    class Encoded(ILSVRC12Files):
        def __iter__(self) -> Any:
            for file, label in super().__iter__():
                yield [np.frombuffer(Path(file).read_bytes(), "uint8"), label]

    ds = Encoded(str(photographs), "train")
    ds.reset_state()
    assert all(jpeg[:2].tolist() == [0xFF, 0xD8] for jpeg, _ in ds)


def test_without_opencv_the_error_says_what_to_install(photographs: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from dfserve.dataflow.dataset import ILSVRC12\n"
        f"ds = ILSVRC12({str(photographs)!r}, 'train', shuffle=False)\n"
        "try: ds[0]\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'dfserve[producer]'" in result.stdout


def test_unreadable_files_are_skipped_within_limits(folder: Path, tmp_path: Path) -> None:
    names = [name for name, _ in ILSVRC12Files(folder, "train").imglist]
    for name in names[:2]:
        (folder / "train" / name).write_bytes(b"this is no JPEG")
    ds = ILSVRC12(folder, "train", on_error=SkipErrors(quarantine=tmp_path / "bad.jsonl"))
    ds.reset_state()
    assert len(list(ds)) == 3
    assert all(name in (tmp_path / "bad.jsonl").read_text() for name in names[:2])
    with pytest.raises(TooManyErrors):
        list(ILSVRC12(folder, "train", shuffle=False, on_error=SkipErrors(total=1)))
    with pytest.raises(DatapointError):
        ds[0]


def test_a_negative_label_is_refused_where_it_would_name_a_synset(folder: Path) -> None:
    (folder / "val" / SYNSETS[0]).mkdir(parents=True)
    (folder / "synsets.txt").write_text("\n".join(SYNSETS))
    (folder / "val.txt").write_text("a.JPEG -1\n")
    with pytest.raises(ConfigError, match=r"val\.txt, line 1"):
        ILSVRC12Files(folder, "val", dir_structure="train")
