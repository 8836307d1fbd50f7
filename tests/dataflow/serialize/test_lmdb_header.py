"""Whether an LMDB data file is whole, found out without mapping it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow.serialize.lmdb_header import check_whole, complete, data_file
from dfserve.errors import StoreError

lmdb: Any = pytest.importorskip("lmdb")

LAYOUTS = [{"lib_version": 0}, {"lib_version": 1}] if hasattr(lmdb.Environment, "lib_version") else [{}]


@pytest.fixture(params=LAYOUTS, ids=str)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data file of 200 entries, in each layout that the installed LMDB has."""
    env = lmdb.open(str(tmp_path), map_size=1 << 24, **request.param)
    for start in range(0, 200, 50):
        with env.begin(write=True) as txn:
            for number in range(start, start + 50):
                txn.put(b"%08d" % number, bytes(number * 50))
    env.close()
    return tmp_path / "data.mdb"


def test_a_folder_means_the_data_file_in_it(tmp_path: Path) -> None:
    assert data_file(tmp_path) == tmp_path / "data.mdb"
    assert data_file(str(tmp_path / "x.lmdb")) == tmp_path / "x.lmdb"


def test_a_relative_path_still_means_the_same_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_file("x.lmdb") == tmp_path / "x.lmdb"


def test_a_whole_file_passes_and_any_cut_one_does_not(database: Path) -> None:
    check_whole(database)
    whole = database.stat().st_size
    for size in (whole - 1, whole - 4096, whole // 2, 8192, 8191, 4097, 4096, 200, 16, 0):
        os.truncate(database, size)
        with pytest.raises(StoreError, match=r"was cut short|is no LMDB data file"):
            check_whole(database)


def test_the_message_says_how_much_is_missing(database: Path) -> None:
    whole = database.stat().st_size
    os.truncate(database, whole - 4096)
    with pytest.raises(StoreError, match=f"data.mdb has {whole - 4096} bytes and LMDB's pages in use end at {whole}"):
        check_whole(database)


def test_a_file_without_its_trailing_free_pages_can_be_completed(database: Path) -> None:
    whole = database.stat().st_size
    os.truncate(database, whole - 4096)
    complete(database)
    assert database.stat().st_size == whole
    check_whole(database)
    complete(database)
    assert database.stat().st_size == whole


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, b"\x80\x04" + bytes(9000), bytes(100_000)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(StoreError, match="is no LMDB data file"):
        check_whole(tmp_path / "x")


def test_a_nonsensical_page_size_is_refused(database: Path) -> None:
    content = bytearray(database.read_bytes())
    start = 16 if content[16:20] == b"\xde\xc0\xef\xbe" else 24
    content[start + 24 : start + 28] = (4097).to_bytes(4, "little")
    database.write_bytes(content)
    with pytest.raises(StoreError, match="pages have 4097 bytes"):
        check_whole(database)


def test_a_missing_file_is_an_oserror_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.lmdb"):
        check_whole(tmp_path / "x.lmdb")
