"""Image files: colours, sizes, and files that are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.failures import key_of
from dfserve.dataflow.image_files import ImageFromFile
from dfserve.dataflow.policy import SkipErrors
from dfserve.errors import ConfigError, DatapointError, TooManyErrors


@pytest.fixture
def files(photographs: Path) -> list[str]:
    return sorted(map(str, photographs.glob("train/*/*.JPEG")))


@pytest.fixture
def broken(tmp_path: Path) -> list[Path]:
    """Files that are no images: empty, damaged, missing."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "damaged.jpg").write_bytes(b"no image at all")
    return [tmp_path / "empty.jpg", tmp_path / "damaged.jpg", tmp_path / "missing.jpg"]


@pytest.mark.parametrize("channel", [1, 3])
@pytest.mark.parametrize("resize", [None, 32, (20, 30)])
def test_images_are_tensorpacks(tensorpack: ModuleType, files: list[str], channel: int, resize: Any) -> None:
    ours = list(ImageFromFile(files, channel, resize))
    theirs = list(tensorpack.ImageFromFile(list(files), channel, resize))
    for (mine,), (yours,) in zip(ours, theirs, strict=True):
        assert (mine.dtype, mine.shape) == (np.uint8, yours.shape)
        assert np.array_equal(mine, yours)
        assert mine.flags.c_contiguous
        if resize is not None:
            assert mine.shape == (*((32, 32) if resize == 32 else resize), channel)


def test_colours_are_rgb(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "red.png"
    assert cv2.imwrite(str(path), np.full((2, 3, 3), (0, 0, 255), np.uint8))  # BGR
    (image,) = ImageFromFile([path])[0]
    assert image[0, 0].tolist() == [255, 0, 0]


def test_an_index_is_a_file_whatever_the_order_of_the_passes(files: list[str]) -> None:
    ds = ImageFromFile(files, resize=16, shuffle=True)
    ds.reset_state()
    before = [ds[i][0].tobytes() for i in range(len(ds))]
    passes = [[image.tobytes() for (image,) in ds] for _ in range(6)]
    assert all(sorted(each) == sorted(before) for each in passes)
    assert len({tuple(each) for each in passes}) > 1
    assert [ds[i][0].tobytes() for i in range(len(ds))] == before
    assert ds[-1][0].tobytes() == before[-1]
    with pytest.raises(IndexError):
        ds[len(files)]


def test_shuffling_leaves_the_list_of_files_as_it_is(files: list[str]) -> None:
    given = list(files)
    ds = ImageFromFile(given, shuffle=True)
    ds.reset_state()
    for _ in range(3):
        list(ds)
    assert given == files


def test_a_file_that_is_no_image_is_an_error_that_names_it_and_says_why(files: list[str], broken: list[Path]) -> None:
    for path, why in zip(broken, ["it is empty", "a damaged one", "No such file"], strict=True):
        ds = ImageFromFile([*files, path])
        with pytest.raises(DatapointError, match=f"{path}.*{why}") as caught:
            list(ds)
        assert key_of(caught.value) == str(path)
        with pytest.raises(DatapointError):
            ds[-1]


def test_files_that_are_no_images_are_skipped_and_kept_in_the_quarantine_file(
    files: list[str], broken: list[Path], tmp_path: Path
) -> None:
    quarantine = tmp_path / "bad.jsonl"
    ds = ImageFromFile([*broken, *files], on_error=SkipErrors(quarantine=quarantine))
    assert len(list(ds)) == len(files)
    lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [line["key"] for line in lines] == list(map(str, broken))
    assert {line["operator"] for line in lines} == {"ImageFromFile"}
    with pytest.raises(DatapointError):
        ds[0]


def test_a_limit_on_what_is_skipped_holds(broken: list[Path]) -> None:
    with pytest.raises(TooManyErrors, match="total=2"):
        list(ImageFromFile(broken, on_error=SkipErrors(total=2)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([],), "at least one path"),
        (("a.jpg",), "at least one path"),
        ((["a.jpg"], 4), "channel is 4"),
        ((["a.jpg"], 3, 0), "resize is 0"),
        ((["a.jpg"], 3, (1, 2, 3)), "resize is"),
        ((["a.jpg"], 3, "big"), "resize is"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ImageFromFile(*arguments)


def test_without_opencv_it_says_what_to_install(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # Python's own way to say that it cannot be imported
    with pytest.raises(ImportError, match=r"pip install 'dfserve\[producer\]'"):
        ImageFromFile(files)[0]


def test_what_is_no_path_does_not_end_a_pass_that_skips(files: list[str]) -> None:
    odd: list[Any] = [b"a.jpg", "a\0.jpg", *files]
    assert len(list(ImageFromFile(odd, on_error="skip"))) == len(files)


def test_a_file_that_is_cut_short_is_skipped(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(Path(files[0]).read_bytes()[:-1000])
    assert len(list(ImageFromFile([*files, tmp_path / "cut.jpg"], on_error="skip"))) == len(files)


def test_opencv_that_is_missing_is_not_skipped(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install"):
        list(ImageFromFile(files, on_error="skip"))
