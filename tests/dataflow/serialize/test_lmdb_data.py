"""Any LMDB file as pairs of bytes, and decoding them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dfserve.dataflow import DataFromList
from dfserve.dataflow.serialize import LMDBSerializer
from dfserve.dataflow.serialize.lmdb_data import LMDBData, LMDBDataDecoder, LMDBDataPoint
from dfserve.dataflow.serialize.lmdb_datapoints import LMDBDatapoints
from dfserve.errors import StoreError

lmdb: Any = pytest.importorskip("lmdb")
# Python 3.12 warns of every fork of a process with threads; that forks work is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ENTRIES = [[b"%08d" % number, bytes([number]) * 50 * number] for number in range(100)]
Same = Callable[[Any, Any], bool]


def write(path: Path, entries: list[list[bytes]], **options: Any) -> Path:
    with lmdb.open(str(path), map_size=1 << 24, **options) as env, env.begin(write=True) as txn:
        for key, value in entries:
            txn.put(key, value)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An LMDB that somebody else wrote, as a folder."""
    return write(tmp_path / "folder", ENTRIES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Ours, of 100 datapoints."""
    LMDBSerializer.save(DataFromList([[np.full(7, n), n] for n in range(100)], shuffle=False), tmp_path / "ours")
    return tmp_path / "ours"


def shuffled(ds: Any) -> list[Any]:
    ds.reset_state()
    return list(ds)


def test_without_shuffle_the_pairs_come_in_the_order_of_the_keys(folder: Path) -> None:
    ds = LMDBData(folder, shuffle=False)
    assert (list(ds), len(ds)) == (ENTRIES, 100)
    assert {type(part) for pair in ds for part in pair} == {bytes}


def test_shuffled_passes_have_all_pairs_each_in_an_order_of_its_own(folder: Path) -> None:
    ds = LMDBData(folder)
    first, second = shuffled(ds), list(ds)
    assert first != second
    assert sorted(first) == sorted(second) == ENTRIES


def test_a_single_file_is_read_too(tmp_path: Path) -> None:
    assert list(LMDBData(write(tmp_path / "x", ENTRIES, subdir=False), shuffle=False)) == ENTRIES


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x", ENTRIES, subdir=False, lock=False)
    shuffled(LMDBData(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "keys", ["{:0>8d}", "{:08}", [key for key, _ in ENTRIES], [key.decode() for key, _ in ENTRIES]]
)
def test_keys_may_be_given_as_a_list_or_a_format(folder: Path, keys: Any) -> None:
    ds = LMDBData(folder, True, keys)
    assert sorted(shuffled(ds)) == ENTRIES
    assert (len(ds), ds[7]) == (100, ENTRIES[7])


def test_some_keys_make_a_pass_of_those(folder: Path) -> None:
    ds = LMDBData(folder, keys=["00000005", "00000002"])
    assert sorted(shuffled(ds)) == [ENTRIES[2], ENTRIES[5]]
    assert (len(ds), ds[0]) == (2, ENTRIES[5])


def test_without_shuffle_given_keys_are_not_used_as_in_tensorpack(folder: Path) -> None:
    assert list(LMDBData(folder, shuffle=False, keys=["no"])) == ENTRIES


def test_a_key_that_is_not_there_is_an_error_that_names_it(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"has no key b'img-\d+'"):
        shuffled(LMDBData(folder, keys="img-{}"))


@pytest.mark.parametrize("shuffle", [False, True])
def test_item_i_has_the_ith_key(folder: Path, shuffle: bool) -> None:
    ds = LMDBData(folder, shuffle)
    assert [ds[index] for index in (3, 0, -1)] == [ENTRIES[3], ENTRIES[0], ENTRIES[-1]]
    with pytest.raises(IndexError):
        ds[100]


def test_the_pairs_are_tensorpacks(folder: Path, tensorpack: ModuleType) -> None:
    theirs = tensorpack.LMDBData(str(folder), shuffle=False)
    theirs.reset_state()
    pairs = [[bytes(key), bytes(value)] for key, value in theirs]
    theirs._close_lmdb()  # LMDB admits a file only once in a process
    assert list(LMDBData(str(folder), shuffle=False)) == pairs


def test_the_entry_that_lists_the_others_is_left_out(tmp_path: Path, saved: Path) -> None:
    theirs = write(tmp_path / "theirs", [*ENTRIES, [b"__keys__", b"\x80\x04whatever"]])
    for ds in (LMDBData(theirs), LMDBData(theirs, shuffle=False)):
        assert len(ds) == 100
        assert sorted(shuffled(ds)) == ENTRIES
        assert ds[99] == ENTRIES[99]
    ours = LMDBData(saved)
    assert sorted(key for key, _ in shuffled(ours)) == [b"%012d" % number for number in range(100)]
    assert len(ours) == len(list(LMDBData(saved, shuffle=False))) == 100


def test_keys_of_another_form_are_found_beside_a_list_that_is_not_opened(tmp_path: Path) -> None:
    entries = [[b"cat.jpg", b"1"], [b"dog.jpg", b"2"], [b"zebra.jpg", b"3"]]
    ds = LMDBData(write(tmp_path / "x", [*entries, [b"__keys__", b"\x80\x04whatever"]]))
    assert sorted(shuffled(ds)) == entries
    assert (len(ds), ds[1]) == (3, entries[1])


def test_an_empty_file_has_no_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [])
    assert shuffled(LMDBData(path)) == list(LMDBData(path, shuffle=False)) == []


def test_a_cut_file_is_refused(folder: Path) -> None:
    os.truncate(folder / "data.mdb", 20_000)
    with pytest.raises(StoreError, match="was cut short"):
        LMDBData(folder)


def _pairs(ds: Any, results: Any) -> None:
    results.put(shuffled(ds))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_other_processes_read_it_too(folder: Path, method: str, shuffle: bool) -> None:
    context = multiprocessing.get_context(method)
    ds = LMDBData(folder, shuffle)
    assert ds[0] == ENTRIES[0]  # open here
    results = context.Queue()
    readers = [context.Process(target=_pairs, args=(ds, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [sorted(results.get(timeout=60)) for _ in readers]
    for reader in readers:
        reader.join(60)
    assert found == [ENTRIES, ENTRIES]


def test_a_pass_goes_on_in_a_forked_child_and_in_the_parent(folder: Path) -> None:
    passing = iter(LMDBData(folder, shuffle=False))
    assert [next(passing) for _ in range(10)] == ENTRIES[:10]
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(there, b"y" if list(passing) == ENTRIES[10:] else b"n")
        finally:
            os._exit(0)
    assert os.read(here, 1) == b"y"
    assert os.waitpid(child, 0)[1] == 0
    assert list(passing) == ENTRIES[10:]
    os.close(here)
    os.close(there)


def as_number(key: bytes, value: bytes) -> list[int] | None:
    return [int(key), len(value)] if int(key) % 2 else None


def test_a_decoder_gets_key_and_value_and_may_drop_them(folder: Path) -> None:
    ds = LMDBDataDecoder(LMDBData(folder, shuffle=False), as_number)
    assert list(ds) == [[number, 50 * number] for number in range(1, 100, 2)]
    assert list(pickle.loads(pickle.dumps(ds))) == list(ds)


def test_a_decoder_may_fail_within_the_limits_of_the_policy(folder: Path) -> None:
    def decode(key: bytes, value: bytes) -> list[int]:
        return [100 // int(key)]

    with pytest.raises(ZeroDivisionError):
        list(LMDBDataDecoder(LMDBData(folder, shuffle=False), decode))
    assert len(list(LMDBDataDecoder(LMDBData(folder, shuffle=False), decode, on_error="skip"))) == 99


def test_the_old_name_loads_what_was_saved(saved: Path) -> None:
    ds = LMDBDataPoint(saved)
    assert isinstance(ds, LMDBDatapoints)
    assert sorted(number for _, number in shuffled(ds)) == list(range(100))
    assert [number for _, number in LMDBDataPoint(str(saved), shuffle=False)] == list(range(100))


def test_the_old_name_decodes_the_pairs_of_any_source(saved: Path, same: Same) -> None:
    pairs = list(LMDBData(saved, shuffle=False))
    expected = list(LMDBSerializer.load(saved, shuffle=False))
    assert same(list(LMDBDataPoint(LMDBData(saved, shuffle=False))), expected)
    assert same(list(LMDBDataPoint(DataFromList(pairs, shuffle=False))), expected)
    assert same(list(map(LMDBSerializer._deserialize_lmdb, pairs)), expected)


def test_the_old_name_decodes_tensorpacks_msgpack_and_refuses_its_pickles(same: Same) -> None:
    msgpacked, pickled = [b"a", b"\x92\x01\xa1b"], [b"b", pickle.dumps([1])]
    assert same(list(LMDBDataPoint(DataFromList([msgpacked], shuffle=False))), [[1, "b"]])
    with pytest.raises(StoreError, match=r"the value of key b'b' .*never opens"):
        list(LMDBDataPoint(DataFromList([pickled], shuffle=False)))
