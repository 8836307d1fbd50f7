"""WebDataset shards: samples, decoding, the error policy, and shards that are not whole."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow.failures import key_of
from dfserve.dataflow.policy import SkipErrors
from dfserve.dataflow.serialize.webdataset import WebDataset
from dfserve.errors import ConfigError, DatapointError, StoreError, TooManyErrors


def write_shard(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def sample(number: int) -> list[tuple[str, bytes]]:
    return [(f"d/{number:03d}.jpg", bytes([255, 216, number])), (f"d/{number:03d}.cls", b"%d" % number)]


@pytest.fixture
def shards(tmp_path: Path) -> str:
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        write_shard(tmp_path / f"s-{shard:03d}.tar", [file for number in numbers for file in sample(number)])
    return str(tmp_path / "s-{000..002}.tar")


def one(tmp_path: Path, *files: tuple[str, bytes], **keywords: Any) -> list[dict[str, Any]]:
    return list(WebDataset(write_shard(tmp_path / "one.tar", list(files)), **keywords))


def labels(ds: Any) -> list[int]:
    return [int(datapoint["cls"].tobytes()) for datapoint in ds]


def test_a_sample_is_a_dict_of_its_files_as_bytes(shards: str) -> None:
    first = next(iter(WebDataset(shards)))
    assert list(first) == ["__key__", "jpg", "cls"]
    assert (first["__key__"], first["jpg"].tolist(), first["cls"].tolist()) == ("d/000", [255, 216, 0], [48])
    assert (first["jpg"].dtype, first["jpg"].flags.writeable) == (np.dtype("uint8"), False)


def test_a_pass_is_all_samples_in_order_every_time(shards: str) -> None:
    ds = WebDataset(shards)
    assert labels(ds) == labels(ds) == list(range(12))


def test_each_shard_can_be_opened_alone(shards: str) -> None:
    ds = WebDataset(shards)
    keys = ds.shard_keys()
    assert [Path(key).name for key in keys] == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert labels(ds.open_shard(keys[1])) == [4, 5, 6, 7]


def test_shuffling_changes_the_order_of_the_shards_and_not_within(shards: str) -> None:
    ds = WebDataset(shards, shuffle=True)
    ds.reset_state()
    ds.rng = np.random.RandomState(0)
    passes = [labels(ds) for _ in range(10)]
    assert len(set(map(tuple, passes))) > 1
    for found in passes:
        assert sorted(found[::4]) == [0, 4, 8]
        assert found == [start + step for start in found[::4] for step in range(4)]


def test_several_paths_and_patterns_may_be_given(shards: str, tmp_path: Path) -> None:
    ds = WebDataset([tmp_path / "s-002.tar", str(tmp_path / "s-{000,001}.tar")])
    assert labels(ds) == [8, 9, 10, 11, *range(8)]


def test_files_are_grouped_by_the_name_up_to_its_first_dot(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        ("__meta__/about.json", b"{}"),
        ("a.v2/x.left.JPG", b"1"),
        ("a.v2/x.right.jpg", b"2"),
        ("README", b"no extension"),
        ("a.v2/.hidden", b"no name"),
        ("x.left.jpg", b"3"),
        ("a.v2/x.left.jpg", b"4"),
    )
    assert [list(datapoint) for datapoint in found] == [
        ["__key__", "left.jpg", "right.jpg"],
        ["__key__", "left.jpg"],
        ["__key__", "left.jpg"],
    ]
    assert [datapoint["__key__"] for datapoint in found] == ["a.v2/x", "x", "a.v2/x"]


def npy(array: Any, **keywords: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **keywords)
    return file.getvalue()


def test_text_formats_and_npy_are_decoded_if_asked(tmp_path: Path) -> None:
    (found,) = one(
        tmp_path,
        ("a.cls", b" 7\n"),
        ("a.txt", "é".encode()),
        ("a.json", json.dumps({"boxes": [[1, 2.5]]}).encode()),
        ("a.x.npy", npy(np.arange(3, dtype="f4"))),
        ("a.png", b"\x89PNG"),
        decode=True,
    )
    depth = found.pop("x.npy")
    depth += 1  # it is writable
    assert (depth.dtype, depth.tolist()) == (np.dtype("float32"), [1, 2, 3])
    assert found.pop("png").tolist() == [137, 80, 78, 71]
    assert found == {"__key__": "a", "cls": 7, "txt": "é", "json": {"boxes": [[1, 2.5]]}}


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


def test_pickles_stay_bytes_and_an_npy_of_objects_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(Trap())
    (found,) = one(tmp_path, ("a.pyd", content), ("a.pkl", content), ("a.pickle", content), decode=True)
    assert all(found[name].tobytes() == content for name in ("pyd", "pkl", "pickle"))
    with pytest.raises(DatapointError, match="nothing here unpickles"):
        one(tmp_path, ("a.npy", npy(np.array([Trap()], object), allow_pickle=True)), decode=True)


BAD = {
    "text": ("b.txt", b"\xff"),
    "number": ("b.cls", b"seven"),
    "json": ("b.json", b"[" * 100_000),
    "npy": ("b.npy", b"\x93NUMPY"),
    "size": ("b.png", bytes(1001)),
    "doubled": ("b.jpg", b"again"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_sample_is_raised_with_its_key_or_skipped(tmp_path: Path, bad: tuple[str, bytes]) -> None:
    files = [("a.jpg", b"1"), ("b.jpg", b"2"), bad, ("b.id", b"3"), ("c.jpg", b"4")]
    with pytest.raises(DatapointError, match=r"sample 'b' of .*one\.tar") as caught:
        one(tmp_path, *files, decode=True, max_sample=1000)
    assert key_of(caught.value) == f"{tmp_path / 'one.tar'}/b"
    found = one(tmp_path, *files, decode=True, max_sample=1000, on_error="skip")
    assert [datapoint["__key__"] for datapoint in found] == ["a", "c"]


def test_skipping_has_limits(tmp_path: Path) -> None:
    files = [(f"{n}.cls", b"x") for n in range(10)]
    with pytest.raises(TooManyErrors, match="in_a_row=3"):
        one(tmp_path, *files, decode=True, on_error=SkipErrors(in_a_row=3))


def test_the_limit_is_on_all_files_of_a_sample_together(tmp_path: Path) -> None:
    files = [(f"a.{n}", bytes(40)) for n in range(3)]
    assert len(one(tmp_path, *files, max_sample=120)) == 1
    with pytest.raises(DatapointError, match=r"more than 119 bytes \(max_sample\)"):
        one(tmp_path, *files, max_sample=119)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_cut_shard_is_an_error_after_its_whole_samples(shards: str, tmp_path: Path, on_error: Any) -> None:
    shard = tmp_path / "s-001.tar"
    whole = shard.read_bytes()
    ds = WebDataset(shards, on_error=on_error)
    for length in range(512, 8 * 1024, 512):
        shard.write_bytes(whole[:length])
        found: list[dict[str, Any]] = []
        with pytest.raises(StoreError, match=str(shard)) as caught:
            found.extend(ds)
        complete = max(0, (length - 512) // 2048)  # the next header says that a sample is whole
        assert labels(found) == list(range(4 + complete))
        last = f"d/{3 + complete:03d}" if complete else "none"
        assert f"(the last whole sample: {last})" in str(caught.value)
        assert key_of(caught.value) == str(shard)


def test_a_sparse_file_is_a_bad_sample(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.tar"
    member = tarfile.TarInfo("x.bin")
    member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}
    member.size = 1
    with tarfile.open(sparse, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(b"1"))
    with pytest.raises(DatapointError, match="stored sparse"):
        list(WebDataset(sparse))


def test_a_shard_without_samples_is_an_error_unless_it_is_empty(tmp_path: Path) -> None:
    assert one(tmp_path) == []
    with pytest.raises(StoreError, match=r"one\.tar has no samples: none of its 2 files"):
        one(tmp_path, ("README", b""), ("LICENSE", b""))


def test_a_pass_that_is_left_closes_its_file(shards: str) -> None:
    passing = iter(WebDataset(shards))
    next(passing)
    passing.close()  # type: ignore[attr-defined]  # it is a generator; ResourceWarnings are errors


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "no shards"),
        ("/nowhere/{0..9}.tar", "10 of 10 shards are no files here; the first: /nowhere/0.tar"),
        ("https://host/{0..9}.tar", "no local path"),
        ("pipe:cat x.tar", "no local path"),
        ("/nowhere/{0..}.tar", "neither a range"),
        (["/nowhere/a.tar", "/nowhere/{a,b}.tar"], "given more than once"),
    ],
)
def test_shards_that_cannot_be_read_are_refused_at_once(paths: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        WebDataset(paths)


def test_it_pickles(shards: str) -> None:
    assert labels(pickle.loads(pickle.dumps(WebDataset(shards)))) == list(range(12))
