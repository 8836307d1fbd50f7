"""npz files: what was saved comes back, and a file that is not whole is never loaded."""

from __future__ import annotations

import gc
import os
import pickle
import random
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromList
from dfserve.dataflow.serialize import numpy_file
from dfserve.dataflow.serialize.numpy_file import FORMAT, NumpySerializer
from dfserve.dataflow.serialize.records import encode_record
from dfserve.errors import EncodeError, StoreError

DATAPOINTS: list[Any] = [[np.full((4, n + 1), n, "uint8"), n, f"label {n}"] for n in range(7)]


def listed(*datapoints: Any) -> DataFromList:
    return DataFromList(list(datapoints), shuffle=False)


def plain(datapoints: Any) -> list[Any]:
    return [[image.tolist(), label, name] for image, label, name in datapoints]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.fixture
def saved(path: Path) -> Path:
    NumpySerializer.save(listed(*DATAPOINTS), path)
    return path


def test_ragged_datapoints_come_back_as_they_were_and_in_order(saved: Path) -> None:
    ds = NumpySerializer.load(saved, shuffle=False)
    assert len(ds) == 7
    assert plain(ds) == plain(ds) == plain(DATAPOINTS)


def test_tuples_dicts_and_python_values_keep_their_types(path: Path) -> None:
    datapoints = [(1, 2.5), {"a": None, "b": [True, b"x", {"y": {3}}]}, [], [np.float32(1.5)]]
    NumpySerializer.save(listed(*datapoints), path)
    found = list(NumpySerializer.load(path, shuffle=False))
    assert (found, repr(found)) == (datapoints, repr(datapoints))


def test_a_pass_is_shuffled_anew_by_default_and_as_tensorpack_does(saved: Path, tensorpack: ModuleType) -> None:
    ours, theirs = NumpySerializer.load(saved), tensorpack.DataFromList(DATAPOINTS)
    for ds in (ours, theirs):
        ds.reset_state()
        ds.rng = np.random.RandomState(3)
    first, second = plain(ours), plain(ours)
    assert first == plain(theirs)
    assert first != second
    assert sorted(first) == sorted(second) == plain(DATAPOINTS)


def test_an_item_is_a_function_of_its_index_whatever_was_done_to_it_before(saved: Path) -> None:
    ds = NumpySerializer.load(saved)
    ds[2][0][...] = 99
    assert plain([ds[2], ds[-5]]) == plain([DATAPOINTS[2]] * 2)
    with pytest.raises(IndexError):
        ds[7]


def test_a_file_of_many_blocks_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_file, "_BLOCK", 200)
    NumpySerializer.save(listed(*DATAPOINTS), path)
    assert sum(name.startswith("block_") for name in np.load(path).files) > 2
    ds = NumpySerializer.load(path, shuffle=False)
    assert plain(ds) == plain([ds[n] for n in range(7)]) == plain(DATAPOINTS)


def test_numpy_reads_the_file_without_pickles(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as arrays:
        assert str(arrays["format"]) == FORMAT
        begin, end = arrays["offsets"][3:5]
        assert arrays["block_000000"][begin:end].tobytes() == encode_record(DATAPOINTS[3])


def test_no_datapoints_are_a_file_too(path: Path) -> None:
    NumpySerializer.save(listed(), path)
    ds = NumpySerializer.load(path, shuffle=False)
    assert (len(ds), list(ds)) == (0, [])


def test_the_suffix_is_added_as_numpy_does(tmp_path: Path) -> None:
    NumpySerializer.save(listed([1]), tmp_path / "data")
    assert [file.name for file in tmp_path.iterdir()] == ["data.npz"]
    assert list(NumpySerializer.load(str(tmp_path / "data"), shuffle=False)) == [[1]]


def test_what_could_only_be_pickled_is_refused_by_name_and_leaves_the_old_file(saved: Path) -> None:
    with pytest.raises(EncodeError, match=r"datapoint 1 cannot be saved: component 0 .*objects"):
        NumpySerializer.save(listed([1], [np.array([{}], object)]), saved)
    assert plain(NumpySerializer.load(saved, shuffle=False)) == plain(DATAPOINTS)
    assert len(list(saved.parent.iterdir())) == 1


def test_every_flipped_bit_is_found_or_changes_nothing(saved: Path) -> None:
    whole = saved.read_bytes()
    damaged_path = saved.with_name("damaged.npz")
    errors = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        damaged_path.write_bytes(damaged)
        try:
            found = plain(NumpySerializer.load(damaged_path, shuffle=False))
        except StoreError as error:
            errors.append(str(error))
        else:  # the time of day in a zip's header, say
            assert found == plain(DATAPOINTS)
    assert len(errors) > 0.8 * len(whole)
    assert all(str(damaged_path) in error for error in errors)


def test_every_cut_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), 7):
        saved.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="damaged, cut short"):
            NumpySerializer.load(saved)


def tensorpacks(path: Path) -> None:
    np.savez_compressed(path, buffer=np.array(DATAPOINTS, object))


def tensorpacks_uncompressed(path: Path) -> None:
    np.savez(path, buffer=np.array(DATAPOINTS, object))


def of_arrays(path: Path) -> None:
    np.savez(path, images=np.zeros((2, 3)))


def of_another_version(path: Path) -> None:
    np.savez(path, format=np.array("dfserve datapoints 2"), offsets=np.array([0]))


def of_other_offsets(path: Path) -> None:
    np.savez(path, format=np.array(FORMAT), offsets=np.array([0, 500]), block_000000=np.zeros(10, "u1"))


def without_offsets(path: Path) -> None:
    np.savez(path, format=np.array(FORMAT), block_000000=np.zeros(10, "u1"))


def of_text(path: Path) -> None:
    path.write_text("not a zip")


def of_a_folder(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (tensorpacks, "tensorpack"),
        (tensorpacks_uncompressed, "nothing here unpickles"),
        (of_arrays, "numpy.load"),
        (of_another_version, "'dfserve datapoints 2'"),
        (of_other_offsets, "not within its blocks"),
        (without_offsets, "not within its blocks"),
        (of_text, "not a zip file"),
        (of_a_folder, "no .npy header"),
    ],
)
def test_a_foreign_file_is_refused_with_its_name_and_the_reason(path: Path, write: Any, what: str) -> None:
    write(path)
    with pytest.raises(StoreError, match=what) as caught:
        NumpySerializer.load(path)
    assert str(path) in str(caught.value)


def test_records_that_are_none_are_found_when_they_are_read(path: Path) -> None:
    np.savez(path, format=np.array(FORMAT), offsets=np.array([0, 4, 4, 10]), block_000000=np.zeros(10, "u1"))
    ds = NumpySerializer.load(path)
    for place in range(3):
        with pytest.raises(StoreError, match=f"datapoint {place} of"):
            ds[place]


def test_a_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        NumpySerializer.load(path)


def test_a_loaded_file_pickles_small_and_notices_that_it_was_replaced(saved: Path) -> None:
    ds = NumpySerializer.load(saved, shuffle=False)
    pickled = pickle.dumps(ds)
    assert len(pickled) < 1000
    assert plain(pickle.loads(pickled)) == plain(DATAPOINTS)
    NumpySerializer.save(listed([1]), saved)
    assert plain(ds) == plain(DATAPOINTS)  # what is open stays
    with pytest.raises(StoreError, match="had 7 datapoints and has 1"):
        pickle.loads(pickled)


def test_a_file_that_is_cut_short_while_it_is_open_is_an_error_and_not_the_end(saved: Path) -> None:
    ds = NumpySerializer.load(saved, shuffle=False)
    passing = iter(ds)
    next(passing)
    os.truncate(saved, 100)
    for read in (lambda: ds[6], lambda: next(passing)):
        with pytest.raises(StoreError, match=f"{saved} ends at byte 100 .* cut short"):
            read()


def test_a_record_that_would_reach_into_what_follows_its_block_is_refused(path: Path) -> None:
    blocks = {"block_000000": np.zeros(10, "u1"), "block_000001": np.zeros(10, "u1")}
    np.savez(path, format=np.array(FORMAT), offsets=np.array([0, 15, 20]), **blocks)
    with pytest.raises(StoreError, match=r"datapoint 0 of .* does not end in its block"):
        NumpySerializer.load(path)[0]


def test_nothing_stays_open_when_a_file_is_not_used_any_more(saved: Path) -> None:
    def is_open() -> bool:
        return str(saved) in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}

    ds = NumpySerializer.load(saved)
    assert is_open()
    del ds
    gc.collect()
    assert not is_open()
