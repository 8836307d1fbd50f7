"""Saving: a file has its name only when it is complete, whatever happens meanwhile."""

from __future__ import annotations

import fcntl
import io
import logging
import multiprocessing
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow import DataFlow, DataFromList
from dfserve.dataflow.serialize import saving
from dfserve.dataflow.serialize.saving import one_pass, unfinished
from dfserve.errors import ConfigError

FORK = multiprocessing.get_context("fork")
PATIENCE = 30  # seconds
# Python 3.12 warns of every fork of a process with threads; pytest's plugins may have some.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, during: Callable[[], Any], **options: Any) -> None:
    """Save to ``path``, and do something in the middle of it."""
    with unfinished(path, **options) as partial:
        partial.write_bytes(b"ours")
        during()


def test_the_file_has_its_name_only_at_the_end_of_the_block(tmp_path: Path) -> None:
    with unfinished(tmp_path / "x") as partial:
        assert partial.parent == tmp_path
        partial.write_bytes(b"half")
        assert not (tmp_path / "x").exists()
        partial.write_bytes(b"whole")
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_the_file_may_be_read_by_whom_any_new_file_may(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with unfinished(tmp_path / "x"):
        pass
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_what_replaces_a_file_may_be_read_by_nobody_who_could_not_read_that(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for mode in (0o600, 0o640, 0o444, 0o664):
        (tmp_path / "x").chmod(mode)
        with unfinished(tmp_path / "x", replace=True) as partial:
            assert stat.S_IMODE(partial.stat().st_mode) == 0o600
            partial.write_bytes(b"secret")
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to somebody else")
def test_what_root_replaces_still_belongs_to_whom_it_did(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.chown(tmp_path / "x", 65534, 65533)
    with unfinished(tmp_path / "x", replace=True):
        pass
    assert ((tmp_path / "x").stat().st_uid, (tmp_path / "x").stat().st_gid) == (65534, 65533)


@pytest.mark.parametrize("replace", [False, True])
def test_an_error_in_the_block_leaves_everything_as_it_was(tmp_path: Path, replace: bool) -> None:
    if replace:
        (tmp_path / "x").write_bytes(b"old")
    before = names(tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x", interrupt, replace=replace)
    assert names(tmp_path) == before
    assert not replace or (tmp_path / "x").read_bytes() == b"old"


def test_a_file_that_exists_is_refused_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(ConfigError, match="x exists already and is not overwritten"), unfinished(tmp_path / "x"):
        pytest.fail("the block must not run")
    with unfinished(tmp_path / "x", replace=True) as partial:
        partial.write_bytes(b"new")
        assert (tmp_path / "x").read_bytes() == b"old"
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_folder_and_a_folder_that_is_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"), unfinished(tmp_path):
        pytest.fail("the block must not run")
    with pytest.raises(ConfigError, match="there is no folder"), unfinished(tmp_path / "no" / "x"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_stays_and_the_save_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(saving.os, "link", _no_links)
    with pytest.raises(ConfigError, match="exists already"):
        write(tmp_path / "x", lambda: (tmp_path / "x").write_bytes(b"theirs"))
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"theirs"


def _no_links(*_: Any) -> None:
    raise PermissionError("this file system has no hard links")


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving.os, "link", _no_links)
    with unfinished(tmp_path / "x") as partial:
        partial.write_bytes(b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert names(tmp_path) == ["x"]


def test_the_bytes_are_on_the_disk_before_the_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def flush(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def name(old: Any, new: Any) -> None:
        events.append("name")
        link(old, new)

    monkeypatch.setattr(saving.os, "fsync", flush)
    monkeypatch.setattr(saving.os, "link", name)
    with unfinished(tmp_path / "x") as partial:
        partial.write_bytes(b"whole")
    assert events == ["file", "name", "folder"]


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "real" / "y")
    with unfinished(tmp_path / "x") as partial:
        assert partial.parent == tmp_path / "real"
        partial.write_bytes(b"whole")
    assert (tmp_path / "x").is_symlink()
    assert names(tmp_path / "real") == ["y"]


def _hold_a_partial(path: Path, ready: Any) -> None:
    with unfinished(path) as partial:
        partial.write_bytes(b"half")
        ready.send(partial.name)
        signal.pause()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A process that is in the middle of a save to ``x``, and the name of its partial."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=_hold_a_partial, args=(tmp_path / "x", there))
    process.start()
    assert here.poll(PATIENCE)
    yield process, here.recv()
    process.kill()
    process.join(PATIENCE)


def test_the_next_save_removes_what_a_killed_one_left(
    tmp_path: Path, holder: tuple[Any, str], caplog: pytest.LogCaptureFixture
) -> None:
    process, left = holder
    process.kill()
    process.join(PATIENCE)
    assert names(tmp_path) == [left]
    with unfinished(tmp_path / "x") as partial:
        assert names(tmp_path) == [partial.name] != [left]
    assert names(tmp_path) == ["x"]
    assert left in caplog.text


def test_what_a_living_save_is_writing_is_left_alone(tmp_path: Path, holder: tuple[Any, str]) -> None:
    _, theirs = holder
    with unfinished(tmp_path / "x") as partial:
        assert names(tmp_path) == sorted([partial.name, theirs])
    assert names(tmp_path) == sorted(["x", theirs])


def test_files_that_only_look_alike_are_left_alone(tmp_path: Path) -> None:
    others = [
        ".x.partial",
        ".x.0123456.partial",
        ".x.0123456789.partial",
        ".x.y.01234567.partial",
        ".xx.01234567.partial",
        "x.01234567.partial",
        ".x.01234567.part",
    ]
    for name in [*others, ".x.01234567.partial"]:
        (tmp_path / name).touch()
    with unfinished(tmp_path / "x"):
        pass
    assert names(tmp_path) == sorted([*others, "x"])


def test_without_locks_nothing_is_taken_for_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("this file system has no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".x.01234567.partial").touch()
    with unfinished(tmp_path / "x"):
        pass
    assert names(tmp_path) == [".x.01234567.partial", "x"]


def _race(path: Path, begin: Any, results: Any) -> None:
    begin.wait(PATIENCE)
    try:
        with unfinished(path) as partial:
            partial.write_bytes(b"%d" % os.getpid())
        results.put(os.getpid())
    except ConfigError:
        results.put(None)


def test_of_several_saves_at_once_exactly_one_wins(tmp_path: Path) -> None:
    begin, results = FORK.Event(), FORK.Queue()
    racers = [FORK.Process(target=_race, args=(tmp_path / "x", begin, results)) for _ in range(6)]
    for racer in racers:
        racer.start()
    begin.set()
    winners = [result for result in (results.get(timeout=PATIENCE) for _ in racers) if result]
    for racer in racers:
        racer.join(PATIENCE)
    assert names(tmp_path) == ["x"]
    assert [int((tmp_path / "x").read_text())] == winners


def test_a_forked_child_that_leaves_the_block_takes_nothing_away(tmp_path: Path) -> None:
    try:
        with unfinished(tmp_path / "x") as partial:
            child = os.fork()
            if not child:
                raise SystemExit
            os.waitpid(child, 0)
            assert partial.exists()
    except SystemExit:
        os._exit(0)
    assert names(tmp_path) == ["x"]


class Watched(DataFlow):
    """Counts its resets, and notices when its pass is closed."""

    def __init__(self) -> None:
        self.resets = self.closed = 0

    def reset_state(self) -> None:
        self.resets += 1

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from ([0], [1], [2])
        finally:
            self.closed += 1


def test_a_pass_is_reset_lent_and_closed() -> None:
    ds = Watched()
    with one_pass(ds, "x") as datapoints:
        assert list(datapoints) == [[0], [1], [2]]
    assert (ds.resets, ds.closed) == (1, 1)


def test_a_pass_is_closed_when_the_writing_fails() -> None:
    ds = Watched()

    def take_one_and_fail() -> None:
        with one_pass(ds, "x") as datapoints:
            next(datapoints)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        take_one_and_fail()
    assert ds.closed == 1


def test_what_is_no_source_of_datapoints_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no pipeline"), one_pass(7, "x"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(("ds", "total"), [(Watched(), "3"), (iter([[0], [1], [2]]), "an unknown number")])
def test_off_a_terminal_the_log_tells_now_and_then_how_far_it_is(
    ds: Any, total: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "LOG_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "dfserve.dataflow"), one_pass(ds, "there/x") as datapoints:
        list(datapoints)
    assert f"saving there/x: 2 datapoints of {total}" in caplog.text
    assert "saved there/x in " in caplog.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with one_pass(Watched(), "there/x") as datapoints:
        list(datapoints)
    assert "x: 100%" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "3/3" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_without_tqdm_has_no_bar_and_no_error(
    monkeypatch: pytest.MonkeyPatch, sized: Callable[..., list[list[Any]]]
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with one_pass(DataFromList(sized(4), shuffle=False), "x") as datapoints:
        assert len(list(datapoints)) == 4
