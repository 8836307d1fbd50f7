"""Owns the tests of the thread that puts the ledger on disk."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfserve.broker.committer import Committer
from dfserve.broker.ledger_file import LedgerFile
from dfserve.errors import LedgerError

PATIENCE = 30.0  # seconds: a hang becomes a failure


class SlowLedger(LedgerFile):
    """A ledger whose disk waits before each write until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.written: list[int] = []

    def write(self, sequence: int, payload: bytes) -> None:
        self.begun.release()
        assert self.let.acquire(timeout=PATIENCE)
        super().write(sequence, payload)
        self.written.append(sequence)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def slow(path: Path) -> Iterator[tuple[SlowLedger, Committer]]:
    ledger = SlowLedger(path)
    committer = Committer(ledger)
    yield ledger, committer
    ledger.let.release(100)
    committer.close(PATIENCE)


def readable(committer: Committer, timeout: float = 0.0) -> bool:
    return bool(select.select([committer], [], [], timeout)[0])


def on_disk(path: Path) -> tuple[int, bytes | None]:
    with LedgerFile(path) as ledger:
        return ledger.sequence, ledger.read()


def test_what_is_submitted_gets_on_disk_and_the_descriptor_tells(path: Path) -> None:
    committer = Committer(LedgerFile(path))
    assert (committer.durable, readable(committer)) == (0, False)
    for sequence in (1, 2, 5):
        committer.submit(sequence, b"state %d" % sequence)
        assert readable(committer, PATIENCE)
        committer.acknowledge()
        assert (committer.durable, committer.error, readable(committer)) == (sequence, None, False)
    assert committer.close(PATIENCE)
    assert on_disk(path) == (5, b"state 5")


def test_it_goes_on_from_the_number_that_the_ledger_has(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.write(7, b"x")
    committer = Committer(LedgerFile(path))
    assert committer.durable == 7
    with pytest.raises(ValueError, match="state 7 does not come after state 7"):
        committer.submit(7, b"y")
    assert committer.close(PATIENCE)


def test_states_that_come_while_one_is_written_replace_one_another(
    slow: tuple[SlowLedger, Committer], path: Path
) -> None:
    ledger, committer = slow
    committer.submit(1, b"1")
    assert ledger.begun.acquire(timeout=PATIENCE)
    for sequence in range(2, 100):
        committer.submit(sequence, b"%d" % sequence)
    assert committer.durable == 0
    assert not readable(committer)
    ledger.let.release(100)
    assert committer.close(PATIENCE)
    assert ledger.written == [1, 99]
    assert on_disk(path) == (99, b"99")


def test_what_is_on_disk_is_told_while_the_next_state_is_being_written(slow: tuple[SlowLedger, Committer]) -> None:
    ledger, committer = slow
    committer.submit(1, b"1")
    assert ledger.begun.acquire(timeout=PATIENCE)
    committer.submit(2, b"2")
    ledger.let.release()
    assert ledger.begun.acquire(timeout=PATIENCE)
    assert readable(committer)
    committer.acknowledge()
    assert committer.durable == 1
    assert not readable(committer)


def test_acknowledging_twice_does_not_wait(path: Path) -> None:
    committer = Committer(LedgerFile(path))
    committer.acknowledge()
    committer.acknowledge()
    assert committer.close(PATIENCE)


def test_closing_writes_what_is_pending_and_ends_the_lock(path: Path) -> None:
    committer = Committer(LedgerFile(path))
    committer.submit(1, b"a")
    committer.submit(2, b"b")
    assert committer.close(PATIENCE)
    assert committer.close(PATIENCE)  # once more does no harm
    assert on_disk(path) == (2, b"b")
    with pytest.raises(ValueError, match=r"state 3 comes after close\(\)"):
        committer.submit(3, b"c")


def test_closing_does_not_wait_longer_than_it_may_for_a_disk_that_does_not_answer(
    slow: tuple[SlowLedger, Committer],
) -> None:
    ledger, committer = slow
    committer.submit(1, b"1")
    assert ledger.begun.acquire(timeout=PATIENCE)
    committer.submit(2, b"2")
    assert not committer.close(0.01)
    assert committer.durable == 0
    ledger.let.release(100)
    assert committer.close(PATIENCE)
    assert committer.durable == 2


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_arguments: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("broken", "kind"), [(OSError(errno.ENOSPC, "No space left on device"), LedgerError), (MemoryError(), MemoryError)]
)
def test_after_a_failure_nothing_is_confirmed_and_the_descriptor_tells(
    path: Path, broken: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = Committer(LedgerFile(path))
    committer.submit(1, b"a")
    assert readable(committer, PATIENCE)
    committer.acknowledge()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(broken))
        committer.submit(2, b"b")
        assert readable(committer, PATIENCE)
    committer.acknowledge()
    assert isinstance(committer.error, kind)
    committer.submit(3, b"c")
    assert not committer.close(PATIENCE)
    assert committer.durable == 1


def test_the_thread_sleeps_while_there_is_nothing_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float | None] = []
    real = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread().name == "dfserve-ledger":
            timeouts.append(timeout)
        return real(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)
    committer = Committer(LedgerFile(path))
    committer.submit(1, b"a")
    assert committer.close(PATIENCE)
    assert set(timeouts) <= {None}
    assert len(timeouts) <= 2
