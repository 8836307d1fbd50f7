"""Owns the tests of the ledger's place in the file system: who holds it, links, files that were left over."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfserve.broker import ledger_place
from dfserve.broker.ledger_file import SLOT, LedgerFile
from dfserve.errors import LedgerError

REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = b"large" * SLOT  # outgrows the slots of a new file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def written(path: Path, *payloads: bytes) -> None:
    with LedgerFile(path) as ledger:
        for payload in payloads:
            ledger.write(ledger.sequence + 1, payload)


def found(path: Path) -> tuple[int, bytes | None]:
    with LedgerFile(path) as ledger:
        return ledger.sequence, ledger.read()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_link_stays_a_link_when_the_file_grows(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    written(link, b"small", LARGE)
    assert link.is_symlink()
    assert found(path) == (2, LARGE)


def test_files_that_a_crash_left_over_are_removed_and_others_are_not(path: Path) -> None:
    written(path, b"x")
    path.with_name(".ledger.abc.new").write_bytes(b"half of a new ledger")
    path.with_name("ledger.bak").write_bytes(b"the user's own")
    assert found(path) == (1, b"x")
    assert names(path) == ["ledger", "ledger.bak"]


def test_a_second_broker_is_refused_and_the_first_named(path: Path) -> None:
    script = (
        "import sys; from dfserve.broker.ledger_file import LedgerFile; f = LedgerFile(sys.argv[1]); print(); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-uc", script, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"\n"
        with pytest.raises(LedgerError, match=rf"ledger {path} is in use by pid {first.pid} \(.*python.*two brokers"):
            LedgerFile(path)
        first.kill()
        first.wait()
    assert found(path) == (0, None)


def test_a_broker_whose_lock_proc_does_not_tell_is_refused_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LedgerFile(path):
        with pytest.raises(LedgerError, match=f"in use by this process, pid {os.getpid()}"):
            LedgerFile(path)
        monkeypatch.setattr(Path, "read_text", lambda self: "")
        with pytest.raises(LedgerError, match="in use by a process that this user may not look at"):
            LedgerFile(path)


@pytest.mark.parametrize("ends", [True, False])
def test_who_opened_the_file_before_it_was_replaced_goes_on_with_the_one_that_took_its_place(
    path: Path, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LedgerFile(path)

    def late(fd: int, operation: int) -> None:
        monkeypatch.undo()
        first.write(1, LARGE)
        if ends:
            first.close()
        fcntl.flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    if ends:
        assert found(path) == (1, LARGE)
    else:
        with first, pytest.raises(LedgerError, match="in use by this process"):
            LedgerFile(path)


def test_two_brokers_that_make_the_same_ledger_at_once_agree_on_one_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.hardlink_to

    def late(self: Path, target: Path) -> None:
        monkeypatch.undo()
        written(path, b"the other's")
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", late)
    assert found(path) == (1, b"the other's")
    assert names(path) == ["ledger"]


def test_a_ledger_that_is_replaced_again_and_again_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, b"x")
    monkeypatch.setattr(ledger_place, "_hold", lambda fd, path: False)
    with pytest.raises(LedgerError, match="it was replaced 100 times while it was opened"):
        LedgerFile(path)
