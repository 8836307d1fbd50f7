"""The LMDB file that grows: nothing is lost, whenever the map is found to be full."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow.serialize import lmdb_writer
from dfserve.dataflow.serialize.lmdb_header import check_whole
from dfserve.dataflow.serialize.lmdb_writer import GrowingFile

lmdb: Any = pytest.importorskip("lmdb")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x").touch()
    return tmp_path / "x"


def entries_of(path: Path) -> list[tuple[bytes, bytes]]:
    check_whole(path)
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env, env.begin() as txn:
        return list(txn.cursor())


def written(count: int, most: int) -> list[tuple[bytes, bytes]]:
    draw = random.Random(count)
    return [(b"%012d" % number, draw.randbytes(draw.randrange(most))) for number in range(count)]


@pytest.mark.parametrize("commit_every", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("most", [40, 3000, 200_000])
def test_all_that_was_put_is_there_however_small_the_map_was(path: Path, commit_every: int, most: int) -> None:
    entries = written(300, most)
    with GrowingFile(path, 1, commit_every) as file:
        for key, value in entries:
            file.put(key, value)
    assert entries_of(path) == entries


def test_a_map_that_is_full_at_the_commit_grows_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    grow = GrowingFile._grow
    monkeypatch.setattr(GrowingFile, "_grow", lambda file: (sizes.append(file._env.info()["map_size"]), grow(file)))
    entries = written(60, 3000)
    with GrowingFile(path, 1 << 20, 1000) as file:
        file._txn = FullAtCommit(file._txn)
        for key, value in entries:
            file.put(key, value)
    assert sizes == [1 << 20]
    assert entries_of(path) == entries


class FullAtCommit:
    """A transaction for whose last pages there is no room."""

    def __init__(self, txn: Any) -> None:
        self.put, self.abort = txn.put, txn.abort

    def commit(self) -> None:
        raise lmdb.MapFullError


def test_large_entries_do_not_pile_up_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_writer, "PENDING_BYTES", 10_000)
    with GrowingFile(path, 1, 1000) as file:
        for number in range(50):
            file.put(b"%d" % (10 + number), bytes(3000))
            assert file._pending_bytes <= 10_000
        file.put(b"x", bytes(50_000))
    assert len(entries_of(path)) == 51


def test_nothing_put_is_an_empty_file(path: Path) -> None:
    with GrowingFile(path, 1, 1):
        pass
    assert entries_of(path) == []


def test_nothing_is_left_open_after_an_error(path: Path) -> None:
    def put_and_fail() -> None:
        with GrowingFile(path, 1, 1000) as file:
            file.put(b"a", b"b")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        put_and_fail()
    assert entries_of(path) == []


FULL_DISK = """
import resource, sys
from dfserve.dataflow.serialize.lmdb_writer import GrowingFile
from dfserve.errors import StoreError

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with GrowingFile(sys.argv[1], 1, 10) as file:
        for number in range(1000):
            file.put(b"%012d" % number, bytes(5000))
except StoreError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith(f"LMDB cannot write {path}: "), (done.stdout, done.stderr)
    assert path.stat().st_size <= 1 << 20
