"""Archives are unpacked by one process at a time, whatever became of those that began before."""

from __future__ import annotations

import errno
import fcntl
import tarfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow.dataset.archives import take_files, unpack_folder

UNPACK = """
import logging, sys, threading
from pathlib import Path
from dfserve.dataflow.dataset import archives
logging.basicConfig(level="INFO")
call, archive, stopped = sys.argv[1:]
if stopped == "stopped":  # with something unpacked that has not got its name
    def wait(*_):
        print("nearly done", flush=True)
        threading.Event().wait(120)
    archives._rename = wait
    archives.shutil.copyfileobj = wait
if call == "zip":
    archives.unpack_folder(Path(archive), "data")
else:
    archives.take_files(Path(archive), ["a", "b"], Path(archive).parent / "data")
print("done", flush=True)
"""


@pytest.fixture(params=["zip", "tar"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of two files, alone in its folder."""
    path = tmp_path / "root" / f"data.{request.param}"
    path.parent.mkdir()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    if request.param == "zip":
        with zipfile.ZipFile(path, "w") as content:
            for name in ("a", "b"):
                content.write(tmp_path / name, f"data/{name}")
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name in ("a", "b"):
                tar.add(tmp_path / name, f"data/{name}")
    return path


def unpack(archive: Path) -> None:
    if archive.suffix == ".zip":
        unpack_folder(archive, "data")
    else:
        take_files(archive, ["a", "b"], archive.parent / "data")


def tree(archive: Path) -> list[str]:
    return sorted(str(path.relative_to(archive.parent)) for path in archive.parent.rglob("*"))


def whole(archive: Path) -> list[str]:
    return ["data", archive.name, "data/a", "data/b"]  # sorted: a dot comes before a slash


def leftover(archive: Path) -> Path:
    return archive.parent / (".data." if archive.suffix == ".zip" else "data/.a.")


def unpacking(archive: Path, stopped: str) -> list[str]:
    return ["-c", UNPACK, archive.suffix[1:], str(archive), stopped]


def test_what_killed_processes_left_is_removed(archive: Path, start: Any, until: Any) -> None:
    for _ in range(2):
        program = start(*unpacking(archive, "stopped"))
        until(lambda program=program: program.said("nearly done"), "the unpacking")
        assert len(list(leftover(archive).parent.glob(f"{leftover(archive).name}*"))) == 1  # not one more each time
        program.kill()
        program.wait()
    unpack(archive)
    assert tree(archive) == whole(archive)
    assert (archive.parent / "data" / "b").read_bytes() == b"b" * 1000


def test_of_several_processes_one_unpacks_and_the_others_wait(archive: Path, start: Any, until: Any) -> None:
    first = start(*unpacking(archive, "stopped"))
    until(lambda: first.said("nearly done"), "the unpacking")
    others = [start(*unpacking(archive, "")) for _ in range(2)]
    until(lambda: all(other.said("another process") for other in others), "waiting")
    first.kill()
    first.wait()
    assert [other.wait() for other in others] == [0, 0]
    assert sum(other.said("INFO:dfserve.dataflow:unpacking") for other in others) == 1
    assert tree(archive) == whole(archive)


def test_what_only_looks_like_a_leftover_stays(archive: Path) -> None:
    (archive.parent / "data").mkdir()
    mine = archive.parent / "data" / ".a.mine"
    mine.write_text("mine")
    (archive.parent / ".data.old").mkdir()
    if archive.suffix == ".zip":
        (archive.parent / "data").rename(archive.parent / "elsewhere")
        mine = archive.parent / "elsewhere" / ".a.mine"
    unpack(archive)
    assert mine.read_text() == "mine"
    assert (archive.parent / ".data.old").is_dir()


def test_where_there_are_no_locks_nothing_is_taken_for_left(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", cannot)
    (archive.parent / "data").mkdir(exist_ok=True)
    work = leftover(archive).with_name(leftover(archive).name + uuid.uuid4().hex)
    work.mkdir()
    if archive.suffix == ".zip":
        (archive.parent / "data").rmdir()
    unpack(archive)
    assert work.is_dir()
    work.rmdir()
    assert tree(archive) == whole(archive)
