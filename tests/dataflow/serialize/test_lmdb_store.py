"""Saving to LMDB and loading from it: everything comes back, and what is not whole is refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromGenerator, DataFromList, FakeData
from dfserve.dataflow.serialize import LMDBSerializer
from dfserve.errors import ConfigError, EncodeError, StoreError

lmdb: Any = pytest.importorskip("lmdb")

Same = Callable[[Any, Any], bool]
Sized = Callable[..., list[list[Any]]]


def save(datapoints: list[Any], path: Path, **options: Any) -> Path:
    LMDBSerializer.save(DataFromList(datapoints, shuffle=False), path, **options)
    return path


def loaded(path: Path, shuffle: bool = False) -> list[Any]:
    ds = LMDBSerializer.load(path, shuffle=shuffle)
    ds.reset_state()
    return list(ds)


def test_ten_thousand_datapoints_with_a_tiny_map_are_ten_thousand(tmp_path: Path, same: Same, sized: Sized) -> None:
    datapoints = sized(10_000)
    save(datapoints, tmp_path / "x", map_size=1)
    assert same(loaded(tmp_path / "x"), datapoints)
    assert Counter(number for _, number in loaded(tmp_path / "x", shuffle=True)) == Counter(range(10_000))


@pytest.mark.parametrize("write_frequency", [1, 3, 5000])
def test_all_kinds_of_datapoints_come_back_equal(tmp_path: Path, same: Same, write_frequency: int) -> None:
    datapoints = [
        [np.arange(12, dtype=">f4").reshape(3, 4), 7, "text", b"bytes", None],
        (np.float16(0.5), {"nested": [np.zeros(9999), {1, 2}]}),
        {"image": np.zeros((64, 64, 3), np.uint8), "label": 3},
        [],
    ]
    save(datapoints, tmp_path / "x", write_frequency=write_frequency)
    assert same(loaded(tmp_path / "x"), datapoints)


def test_the_save_resets_what_it_saves(tmp_path: Path) -> None:
    LMDBSerializer.save(FakeData([[3, 4], [1]], 20), tmp_path / "x")
    assert [dp[0].shape for dp in loaded(tmp_path / "x")] == [(3, 4)] * 20


def test_what_changes_its_datapoint_after_the_yield_is_saved_as_it_was(tmp_path: Path) -> None:
    def numbers() -> Any:
        array = np.zeros(3)
        for _ in range(5):
            yield [array]
            array += 1

    LMDBSerializer.save(DataFromGenerator(numbers), tmp_path / "x", map_size=1)
    assert [dp[0][0] for dp in loaded(tmp_path / "x")] == [0, 1, 2, 3, 4]


def test_no_datapoints_make_a_file_of_none(tmp_path: Path) -> None:
    save([], tmp_path / "x")
    assert loaded(tmp_path / "x") == loaded(tmp_path / "x", shuffle=True) == []
    assert len(LMDBSerializer.load(tmp_path / "x")) == 0
    assert LMDBSerializer.load(tmp_path / "x").schema is None


def test_a_folder_gets_a_data_file(tmp_path: Path) -> None:
    save([[1]], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.mdb"]
    assert loaded(tmp_path) == loaded(tmp_path / "data.mdb") == [[1]]
    with pytest.raises(ConfigError, match=r"data\.mdb exists already"):
        save([[2]], tmp_path)


def test_nothing_but_the_file_is_left_by_a_save_and_a_load(tmp_path: Path) -> None:
    save([[1]], tmp_path / "x.lmdb")
    loaded(tmp_path / "x.lmdb")
    assert [path.name for path in tmp_path.iterdir()] == ["x.lmdb"]


def test_the_schema_of_the_first_datapoint_is_stored(tmp_path: Path) -> None:
    save([{"image": np.zeros((2, 3), np.uint8), "label": 1}, [7]], tmp_path / "x")
    assert LMDBSerializer.load(tmp_path / "x").schema == {
        "kind": "dict",
        "count": 2,
        "components": [
            {"key": "image", "type": "ndarray", "dtype": "uint8", "shape": [2, 3]},
            {"key": "label", "type": "int"},
        ],
    }


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    save([[1]], tmp_path / "x")
    with pytest.raises(ConfigError, match="x exists already"):
        save([[2]], tmp_path / "x")
    assert loaded(tmp_path / "x") == [[1]]


@pytest.mark.parametrize("options", [{"write_frequency": 0}, {"map_size": 0}])
def test_numbers_that_are_not_positive_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="both are at least 1"):
        save([[1]], tmp_path / "x", **options)


def test_a_datapoint_that_cannot_be_stored_leaves_no_file_and_is_named(tmp_path: Path) -> None:
    datapoints = [[1, 2]] * 5 + [[1, object()]]
    with pytest.raises(EncodeError, match=r"datapoint 5 cannot be saved: component 1 is a .*object"):
        save(datapoints, tmp_path / "x", write_frequency=2)
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_objects_is_refused_not_pickled(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"datapoint 0 cannot be saved: component 0 .*pickle"):
        save([[np.array([1, "a"], object)]], tmp_path / "x")


def test_an_error_of_the_source_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Any:
        yield [1]
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="camera"):
        LMDBSerializer.save(DataFromGenerator(broken), tmp_path / "x", write_frequency=1)
    assert list(tmp_path.iterdir()) == []


def test_without_lmdb_the_error_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([[1]], tmp_path / "x")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    for use in (lambda: save([[1]], tmp_path / "y"), lambda: LMDBSerializer.load(tmp_path / "x")):
        with pytest.raises(ImportError, match=r"pip install 'dfserve\[producer\]'"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_missing_file_is_an_oserror_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.lmdb"):
        LMDBSerializer.load(tmp_path / "nothing.lmdb")


def foreign(path: Path, entries: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24) as env, env.begin(write=True) as txn:
        for key, value in entries.items():
            txn.put(key, value)
    return path


def test_another_lmdb_is_refused_and_named(tmp_path: Path) -> None:
    foreign(tmp_path / "x", {b"img-01": b"a", b"img-02": b"b"})
    with pytest.raises(StoreError, match=r"x is an LMDB with 2 entries and no label .*'img-01'.* LMDBData"):
        LMDBSerializer.load(tmp_path / "x")
    foreign(tmp_path / "empty", {})
    with pytest.raises(StoreError, match="with 0 entries and no label"):
        LMDBSerializer.load(tmp_path / "empty")


def test_a_label_of_another_version_or_count_is_refused(tmp_path: Path) -> None:
    fields = {"format": "dfserve-lmdb", "version": 1, "codec": "dfserve-block 1", "count": 0, "schema": None}
    for changed, message in (
        ({}, None),
        ({"version": 2}, "was written in the format"),
        ({"codec": "dfserve-block 2"}, "was written in the format"),
        ({"count": 9}, "has 0 datapoints, and its label says 9"),
    ):
        text = json.dumps(fields | changed).encode()
        path = foreign(tmp_path / "x", {b"__dfserve__": b"%08x%08x" % (len(text), zlib.crc32(text)) + text})
        if message is None:
            assert loaded(path) == []
        else:
            with pytest.raises(StoreError, match=message):
                LMDBSerializer.load(path)
        path.unlink()


@pytest.mark.parametrize(
    "label", [b"", b"00000004", b"0000000400000000abcd", b"zzzzzzzzzzzzzzzz", b"000000020d4cbb29[]"]
)
def test_a_damaged_label_is_refused(tmp_path: Path, label: bytes) -> None:
    with pytest.raises(StoreError, match="label cannot be read"):
        LMDBSerializer.load(foreign(tmp_path / "x", {b"__dfserve__": label}))


DATAPOINTS = [[np.zeros((3, 4), np.float32), number, "name"] for number in range(30)]
TENSORPACK_SAVE = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from tensorpack.dataflow import DataFromList, LMDBSerializer
datapoints = [[np.zeros((3, 4), np.float32), number, "name"] for number in range(30)]
LMDBSerializer.save(DataFromList(datapoints, shuffle=False), sys.argv[1])
"""


def tensorpacks(path: Path, serializer: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", TENSORPACK_SAVE, str(path)],
        env={**os.environ, "TENSORPACK_SERIALIZE": serializer},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


def test_tensorpacks_msgpack_files_are_read(tmp_path: Path, tensorpack: ModuleType, same: Same) -> None:
    path = tensorpacks(tmp_path / "x", "msgpack")
    ds = LMDBSerializer.load(path, shuffle=False)
    assert same(list(ds), DATAPOINTS)
    assert same(ds[29], DATAPOINTS[29])
    assert (len(ds), ds.schema) == (30, None)
    ds[0][0][:] = 1  # writable, like ours
    assert sorted(number for _, number, _ in loaded(path, shuffle=True)) == list(range(30))


def test_tensorpacks_pickles_are_refused_with_the_way_to_convert_them(
    tmp_path: Path, tensorpack: ModuleType, same: Same
) -> None:
    path = tensorpacks(tmp_path / "x", "pickle")
    with pytest.raises(StoreError, match=r"written by tensorpack with pickle.*LMDBSerializer\.save\("):
        LMDBSerializer.load(path)
    old = tensorpack.LMDBSerializer.load(str(path), shuffle=False)
    LMDBSerializer.save(old, tmp_path / "new")
    assert same(loaded(tmp_path / "new"), DATAPOINTS)


def test_tensorpacks_file_without_its_entries_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x", {b"__keys__": b"\x92\xc4\x01a\xc4\x01b", b"a": b"\x90", b"b": b"\x90"})
    with pytest.raises(StoreError, match="is damaged: it has tensorpack's list of keys"):
        LMDBSerializer.load(path)
    path = foreign(tmp_path / "y", {b"__keys__": b"\xff\xff\xff\xff"})  # pyarrow's
    with pytest.raises(StoreError, match="in a format that is not msgpack"):
        LMDBSerializer.load(path)


# Reads damaged copies of a file, each in a child of its own, so that a signal is noticed.
READ_COPIES = """
import os, signal, sys
from pathlib import Path
import numpy as np
from dfserve.dataflow.serialize import LMDBSerializer
from dfserve.errors import StoreError

def outcome(path):
    try:
        ds = LMDBSerializer.load(path, shuffle=False)
        found = list(ds)
        for place in range(0, len(ds), 7):
            ds[place]
        right = all((array == number % 251).all() and array.shape == (number * 37 % 5000,) for array, number in found)
        return "right" if right and [number for _, number in found] == list(range(200)) else "WRONG"
    except StoreError:
        return "refused"

for path in sorted(Path(sys.argv[1]).iterdir()):
    child = os.fork()
    if not child:
        signal.alarm(30)
        os.write(1, f"{path.name} {outcome(path)}\\n".encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        os.write(1, f"{path.name} status {status}\\n".encode())
"""


def outcomes(copies: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", READ_COPIES, str(copies)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The bytes of a file of 200 records of up to 5000 bytes, and an empty folder ``copies`` beside it."""
    (tmp_path / "copies").mkdir()
    datapoints = [[np.full(number * 37 % 5000, number % 251, np.uint8), number] for number in range(200)]
    return save(datapoints, tmp_path / "x", write_frequency=30).read_bytes()


def test_a_file_cut_anywhere_is_refused_and_kills_nobody(tmp_path: Path, whole: bytes) -> None:
    draw = random.Random(0)
    sizes = {0, 100, 4096, 8192, len(whole) - 4096, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(40))}
    for size in sizes:
        (tmp_path / "copies" / f"{size}").write_bytes(whole[:size])
    found = outcomes(tmp_path / "copies")
    assert len(found) == len(sizes)
    assert set(found.values()) == {"refused"}


def test_a_file_whose_pages_were_never_written_is_refused_and_kills_nobody(tmp_path: Path, whole: bytes) -> None:
    """What a copy leaves that made room for the file first."""
    for start in range(0, len(whole), 4096 * 5):
        (tmp_path / "copies" / f"from-{start}").write_bytes(whole[:start] + bytes(len(whole) - start))
        hole = whole[:start] + bytes(4096) + whole[start + 4096 :]
        (tmp_path / "copies" / f"hole-{start}").write_bytes(hole[: len(whole)])
    found = outcomes(tmp_path / "copies")
    assert set(found.values()) <= {"refused", "right"}, found  # right: the page was one that LMDB does not use
    assert Counter(found.values())["refused"] > 0.9 * len(found)


def test_flipped_bits_in_the_data_are_refused(tmp_path: Path, whole: bytes) -> None:
    """In the pages of values: damage to the few pages of LMDB's own tree is LMDB's to notice."""
    draw = random.Random(0)
    places = [whole.index(np.full(number * 37 % 5000, number % 251, np.uint8).tobytes()) for number in (60, 120, 130)]
    for place in places:
        for _ in range(10):
            damaged = bytearray(whole)
            damaged[place + draw.randrange(-24, 2000)] ^= 1 << draw.randrange(8)
            (tmp_path / "copies" / f"{draw.random()}").write_bytes(damaged)
    found = outcomes(tmp_path / "copies")
    assert set(found.values()) == {"refused"}, found


def test_the_message_names_the_datapoint_that_is_damaged_and_those_before_it_are_yielded(
    tmp_path: Path, whole: bytes
) -> None:
    place = whole.index(bytes([120] * (120 * 37)))
    (tmp_path / "y").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    ds = LMDBSerializer.load(tmp_path / "y", shuffle=False)
    passing = iter(ds)
    assert [next(passing)[1] for _ in range(120)] == list(range(120))
    with pytest.raises(StoreError, match=r"datapoint 120 of .*y has a wrong checksum"):
        next(passing)
    for _ in range(2):
        with pytest.raises(StoreError, match="datapoint 120"):
            ds[120]
    assert ds[121][1] == 121
