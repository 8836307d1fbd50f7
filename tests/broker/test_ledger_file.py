"""Owns the tests of the ledger's file: crashes, decay, full disks, files that are none of ours."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfserve.broker import ledger_file
from dfserve.broker.ledger_file import HEADER, SLOT, LedgerFile
from dfserve.broker.ledger_record import SECTOR, pack
from dfserve.errors import LedgerError

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = Path(__file__).with_name("commit_rounds.py")
REMEDY = 'resume="checkpoint"'
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


def outcome(path: Path) -> tuple[int, bytes | None] | str:
    """What was found, or why the ledger was refused."""
    try:
        return found(path)
    except LedgerError as error:
        return str(error)


def refused(outcome: object, path: Path) -> bool:
    return isinstance(outcome, str) and str(path) in outcome and REMEDY in outcome


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is done to files, in order: (name of the call, its last argument)."""
    done: list[tuple[str, Any]] = []

    def record(where: object, name: str) -> None:
        real = getattr(where, name)

        def call(*arguments: Any) -> Any:
            done.append((name, arguments[-1]))
            return real(*arguments)

        monkeypatch.setattr(where, name, call)

    for name in ("fsync", "fdatasync", "posix_fadvise", "pread", "pwrite"):
        record(os, name)
    record(Path, "replace")
    return done


def test_a_new_ledger_holds_nothing_also_after_it_was_closed(path: Path) -> None:
    assert found(path) == (0, None)
    assert found(path) == (0, None)


def test_the_newest_record_is_read_in_any_later_run(path: Path) -> None:
    with LedgerFile(path) as ledger:
        for sequence in (3, 4, 9):
            ledger.write(sequence, b"state %d" % sequence)
            assert (ledger.sequence, ledger.read()) == (sequence, b"state %d" % sequence)
    assert found(path) == (9, b"state 9")
    written(path, b"later")
    assert found(path) == (10, b"later")


def test_an_empty_state_is_not_the_same_as_none(path: Path) -> None:
    written(path, b"")
    assert found(path) == (1, b"")


def test_a_number_that_does_not_grow_is_refused_and_nothing_is_written(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.write(5, b"x")
        with pytest.raises(ValueError, match="record 5 does not come after record 5"):
            ledger.write(5, b"y")
        assert ledger.read() == b"x"


def test_folders_and_file_are_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dfserve" / "ledger"
    written(path, b"x")
    assert [place.stat().st_mode & 0o777 for place in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    written(path, LARGE)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_state_that_outgrows_its_slot_moves_to_a_larger_file(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.write(1, b"small")
        ledger.write(2, LARGE)
        assert ledger.read() == LARGE
        ledger.write(3, b"small again")
        ledger.write(4, LARGE * 5)
        assert ledger.read() == LARGE * 5
    assert found(path) == (4, LARGE * 5)
    assert names(path) == ["ledger"]


# Crashes


class Write(NamedTuple):
    """The last write to a ledger, in a run of its own."""

    before: bytes  # the whole file
    after: bytes
    old: tuple[int, bytes]  # the number and the state that is found in it before
    new: tuple[int, bytes]

    @property
    def start(self) -> int:
        """Where the slot begins that was written."""
        return HEADER if self.before[: HEADER + SLOT] != self.after[: HEADER + SLOT] else HEADER + SLOT

    def cut(self, kept: int) -> bytes:
        """Return the file when the write stops after ``kept`` bytes of the slot, in the order in which they go."""
        order = [*range(self.start + SECTOR, self.start + SLOT), *range(self.start, self.start + SECTOR)]
        image = bytearray(self.before)
        for place in order[:kept]:
            image[place] = self.after[place]
        return bytes(image)


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def last(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """One more record in a ledger that has some already; each of several sectors."""
    path = tmp_path_factory.mktemp("images") / "ledger"
    states = [b"%d" % number * 1500 for number in range(1, request.param + 1)]
    written(path, *states)
    before = path.read_bytes()
    written(path, b"new" * 600)
    return Write(before, path.read_bytes(), (request.param, states[-1]), (request.param + 1, b"new" * 600))


one_folder = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(kept=st.integers(0, 2048) | st.integers(SLOT - SECTOR, SLOT))
@one_folder
def test_a_write_that_a_kill_cut_short_anywhere_leaves_the_record_before_it(kept: int, last: Write, path: Path) -> None:
    path.write_bytes(last.cut(kept))
    if kept <= SLOT - SECTOR:
        assert found(path) == last.old
        return
    result = outcome(path)  # inside of the head, the last sector: disks do not tear there; if one does, it is refused
    assert result == last.new or (kept < SLOT and refused(result, path))


@given(sectors=st.sets(st.integers(0, 3)))
@one_folder
def test_whatever_sectors_of_a_write_a_power_failure_keeps_the_ledger_goes_on(
    sectors: set[int], last: Write, path: Path
) -> None:
    image = bytearray(last.before)
    for sector in sectors:
        place = slice(last.start + sector * SECTOR, last.start + (sector + 1) * SECTOR)
        image[place] = last.after[place]
    path.write_bytes(image)
    assert found(path) == (last.new if len(sectors) == 4 else last.old)
    written(path, b"goes on")
    assert found(path)[1] == b"goes on"


places = st.integers(0, 64) | st.integers(HEADER, HEADER + 2500) | st.integers(HEADER + SLOT, HEADER + SLOT + 2500)


@given(flips=st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))
@one_folder
def test_after_flipped_bytes_anywhere_the_newest_record_is_read_or_the_file_is_refused(
    flips: list[tuple[int, int]], last: Write, path: Path
) -> None:
    image = bytearray(last.after)
    for place, change in flips:
        image[place] ^= change
    path.write_bytes(image)
    result = outcome(path)
    assert result == last.new or refused(result, path)


@given(begin=places, size=st.integers(1, 3 * SLOT), fill=st.sampled_from([b"\0", b"\xff", None]))
@one_folder
def test_after_bytes_were_zeroed_or_cut_off_the_newest_record_is_read_or_the_file_is_refused(
    begin: int, size: int, fill: bytes | None, last: Write, path: Path
) -> None:
    image = last.after
    middle = b"" if fill is None else fill * len(image[begin : begin + size])
    path.write_bytes(image[:begin] + middle + (image[begin + size :] if fill else b""))
    result = outcome(path)
    assert result == last.new or refused(result, path)


def test_a_flipped_bit_in_the_newest_record_is_refused_with_numbers_and_the_remedy(path: Path) -> None:
    written(path, b"old" * 300, b"new" * 300)
    image = bytearray(path.read_bytes())
    image[HEADER + SLOT + SECTOR + 100] ^= 1
    path.write_bytes(image)
    said = (
        f"ledger {path} is damaged: record 1 is whole, but may not be the last one (the slot of record 2 is damaged: "
        f"1 of 2 sectors fail their check). Going on from it could hand items out a second time, so it is not used; "
        "start the broker with another --ledger file, or with this one moved away, "
        'and the trainer with resume="checkpoint"'
    )
    with pytest.raises(LedgerError) as caught:
        LedgerFile(path)
    assert str(caught.value) == said


def test_bits_that_flip_while_the_ledger_is_open_are_noticed_when_it_is_read(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.write(1, b"x")
        with path.open("r+b") as file:
            file.seek(HEADER + 50)
            file.write(b"?")
        with pytest.raises(LedgerError, match="is damaged: no whole record"):
            ledger.read()


def test_what_is_read_at_opening_was_put_on_disk_before(path: Path, calls: list[tuple[str, Any]]) -> None:
    """A killed broker's last record may be in memory only; who goes on from it confirms it to others."""
    written(path, b"x")
    calls.clear()
    LedgerFile(path).close()
    assert [name for name, _ in calls][:4] == ["fsync", "fsync", "posix_fadvise", "pread"]  # the file, its folder


def test_a_record_is_flushed_once_with_its_head_written_last(path: Path, calls: list[tuple[str, Any]]) -> None:
    with LedgerFile(path) as ledger:
        for start in (HEADER, HEADER + SLOT, HEADER):
            calls.clear()
            ledger.write(ledger.sequence + 1, b"x" * 1000)
            assert [name for name, _ in calls] == ["pwrite", "pwrite", "fdatasync"]
            assert [where for name, where in calls if name == "pwrite"] == [start + SECTOR, start]


def test_a_larger_file_is_on_disk_before_it_takes_the_name_and_the_name_before_it_is_confirmed(
    path: Path, calls: list[tuple[str, Any]]
) -> None:
    with LedgerFile(path) as ledger:
        calls.clear()
        ledger.write(1, LARGE)
        assert [name for name, _ in calls if name != "pwrite"] == ["fsync", "replace", "fsync"]
        slot = (path.stat().st_size - HEADER) // 2
        for start in (HEADER + slot, HEADER):  # the record that made it grow is in the first slot
            calls.clear()
            ledger.write(ledger.sequence + 1, b"small")
            assert calls[-2] == ("pwrite", start)


@pytest.mark.parametrize("largest", [2_000, 200_000], ids=["small states", "states that outgrow the file"])
def test_killed_brokers_leave_every_record_that_was_confirmed(path: Path, largest: int) -> None:
    done = subprocess.run(
        [sys.executable, str(ROUNDS), str(path), "20", str(largest)],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) == 20
    assert all(found >= said for said, found in rounds)
    assert rounds[-1][1] > 0, "nothing was ever committed"
    assert names(path) == ["ledger"]


# Files that are no ledgers


@pytest.mark.parametrize("content", [b"", b"x", b"dfsledg", b"some text of the user's\n" * 400])
def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(
        LedgerError, match=re.escape(f"ledger {path}: {len(content)} bytes that are no ledger of dfserve")
    ):
        LedgerFile(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [8, 100, HEADER - 1, HEADER, HEADER + SLOT, HEADER + 2 * SLOT - 1])
def test_a_ledger_that_was_cut_short_is_refused(path: Path, size: int) -> None:
    written(path, b"x")
    os.truncate(path, size)
    with pytest.raises(LedgerError, match=f"is damaged: it has.* {size} bytes"):
        LedgerFile(path)


def test_a_ledger_of_another_version_is_refused_with_both_numbers(path: Path) -> None:
    written(path, b"x")
    header = struct.pack("<8sIQ", b"dfsledgr", 2, SLOT)
    path.write_bytes(header + struct.pack("<I", zlib.crc32(header)) + path.read_bytes()[len(header) + 4 :])
    with pytest.raises(
        LedgerError, match="has format version 2, this dfserve reads version 1: use the dfserve that wrote"
    ):
        LedgerFile(path)


def test_a_header_that_asks_for_endless_memory_is_refused(path: Path) -> None:
    header = struct.pack("<8sIQ", b"dfsledgr", 1, 1 << 40)
    path.write_bytes((header + struct.pack("<I", zlib.crc32(header))).ljust(HEADER, b"\0"))
    os.truncate(path, HEADER + (2 << 40))
    with pytest.raises(LedgerError, match="is damaged: it has"):
        LedgerFile(path)


def test_a_pipe_and_a_folder_are_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(LedgerError, match=re.escape(f"ledger {path}: it is no regular file")):
        LedgerFile(path)
    with pytest.raises(LedgerError, match=re.escape(f"ledger {path.parent}: Is a directory")):
        LedgerFile(path.parent)


# Disks that take no more


@contextlib.contextmanager
def files_limited_to(nbytes: int) -> Iterator[None]:
    """Python ignores the signal that comes with it, so that a larger file is EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_may_not_grow_is_an_error_and_the_record_before_it_is_kept(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.write(1, b"x")
        with files_limited_to(HEADER + 2 * SLOT), pytest.raises(LedgerError) as caught:
            ledger.write(2, LARGE)
        said = (
            f"ledger {path}: File too large while writing record 2 ({len(LARGE)} bytes); "
            "claims cannot be made durable: make room (or raise the limit) there, then start the broker again"
        )
        assert str(caught.value) == said
        with pytest.raises(LedgerError, match="while writing record 2"):
            ledger.write(3, b"y")
    assert found(path) == (1, b"x")
    assert names(path) == ["ledger"]


def test_no_room_for_a_new_ledger_is_an_error_and_leaves_nothing(path: Path) -> None:
    with files_limited_to(SLOT), pytest.raises(LedgerError, match="File too large while opening it; claims cannot be"):
        LedgerFile(path)
    assert names(path) == []


def test_a_full_disk_is_an_error_and_the_record_before_it_is_kept(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(mount)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with LedgerFile(mount / "ledger") as ledger:
            ledger.write(1, b"x")
            with pytest.raises(LedgerError, match=r"No space left on device while writing record 2.*make room"):
                ledger.write(2, LARGE)
        assert found(mount / "ledger") == (1, b"x")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "the broker's user must be able to write it"),
        (errno.EACCES, "the broker's user must be able to write it"),
        (errno.EDQUOT, "claims cannot be made durable: make room"),
        (errno.EIO, "claims cannot be made durable there: see to the disk"),
    ],
)
def test_what_the_system_refuses_is_said_with_the_file_and_a_remedy(
    path: Path, number: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(
            LedgerError, match=re.escape(f"ledger {path}: {os.strerror(number)} while opening it; {remedy}")
        ):
            LedgerFile(path)


def test_after_a_failed_flush_nothing_is_confirmed_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system forgets which pages it could not write: the next flush would say that all is well."""

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with LedgerFile(path) as ledger:
        ledger.write(1, b"x")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            with pytest.raises(LedgerError, match="Input/output error while writing record 2"):
                ledger.write(2, b"y")
        with pytest.raises(LedgerError, match="Input/output error while writing record 2"):
            ledger.write(3, b"z")
        assert ledger.sequence == 1


def test_a_system_that_takes_a_few_bytes_at_a_time_gets_them_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset))
    written(path, b"x" * 5000)
    assert found(path) == (1, b"x" * 5000)


def test_a_state_beyond_every_reason_is_refused_before_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "LARGEST_SLOT", 2 * SLOT)
    with LedgerFile(path) as ledger, pytest.raises(LedgerError, match=f"a state of {len(LARGE)} bytes is more than"):
        ledger.write(1, LARGE)
    assert found(path) == (0, None)


def test_the_file_begins_as_documented(path: Path) -> None:
    written(path, b"one", b"two")
    image = path.read_bytes()
    assert image[:20] == b"dfsledgr" + (1).to_bytes(4, "little") + SLOT.to_bytes(8, "little")
    assert image[HEADER : HEADER + SECTOR] == pack(1, b"one")
    assert image[HEADER + SLOT : HEADER + SLOT + SECTOR] == pack(2, b"two")
