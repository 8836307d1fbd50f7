"""Tests of the words to a worker: how many gather, that none gathers while it waits, and that each is said once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection

import pytest

from dfserve.dataflow.parallel.link import FREED_BYTES, FREED_EXTENTS, Words
from dfserve.dataflow.parallel.messages import CONSUMED, FREED, WANTED, words

Ends = tuple[Words, Connection]


def heard(far: Connection) -> list[tuple[int, int]]:
    """Return what the worker would hear now."""
    return list(words(os.read(far.fileno(), 1 << 16))) if far.poll() else []


@pytest.fixture
def ends() -> Iterator[Ends]:
    far, near = multiprocessing.Pipe(duplex=False)
    said = Words(near, batch=3)
    yield said, far
    said.close()
    far.close()


def test_datapoints_that_were_handed_out_gather_until_the_batch(ends: Ends) -> None:
    said, far = ends
    said.consumed(2)
    assert heard(far) == []
    said.consumed(2)
    assert heard(far) == [(CONSUMED, 4)]
    said.consumed(1)
    assert heard(far) == []


def test_freed_extents_gather_by_number(ends: Ends) -> None:
    said, far = ends
    for extent in range(FREED_EXTENTS - 1):
        said.freed(extent, 1)
    assert heard(far) == []
    said.freed(99, 1)
    assert heard(far) == [(FREED, extent) for extent in [*range(FREED_EXTENTS - 1), 99]]


def test_freed_extents_gather_by_bytes(ends: Ends) -> None:
    said, far = ends
    said.freed(7, FREED_BYTES - 1)
    assert heard(far) == []
    said.freed(8, 1)
    assert heard(far) == [(FREED, 7), (FREED, 8)]


def test_a_worker_that_waits_is_told_everything_and_then_all_at_once(ends: Ends) -> None:
    said, far = ends
    said.consumed(1)
    said.freed(7, 1)
    said.say_all()
    assert heard(far) == [(CONSUMED, 1), (FREED, 7)]
    said.consumed(1)
    said.freed(8, 1)
    assert heard(far) == [(CONSUMED, 2), (FREED, 8)]
    said.eager = False
    said.consumed(1)
    assert heard(far) == []


def test_words_that_the_pipe_has_no_room_for_are_said_later_in_their_order(ends: Ends) -> None:
    said, far = ends
    for number in range(20_000):
        said.say(WANTED, number)
    found = []
    while some := heard(far):
        found += some
        said.retry()
    assert found == [(WANTED, number) for number in range(20_000)]


@pytest.mark.parametrize("moment", ["just before the write", "just after it"])
def test_what_a_finaliser_frees_while_words_are_sent_is_said_once_and_so_are_they(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    said, far = ends
    write = os.write
    extents = iter(range(5))

    def finalise() -> None:
        for extent in islice(extents, 1):
            said.freed(extent, FREED_BYTES)

    def written(fd: int, data: bytes) -> int:
        if moment == "just before the write":
            finalise()
        count = write(fd, data)
        if moment == "just after it":
            finalise()
        return count

    monkeypatch.setattr("dfserve.dataflow.parallel.link.os.write", written)
    said.say(WANTED, 1)
    assert heard(far) == [(WANTED, 1), *((FREED, extent) for extent in range(5))]


class Interrupted(BaseException):
    """What Ctrl-C or an alarm raises."""


def interrupt(*_: object) -> None:
    raise Interrupted


def test_an_interrupt_before_words_are_written_leaves_them_to_be_said(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, far = ends
    with monkeypatch.context() as patched:
        patched.setattr("dfserve.dataflow.parallel.link.os.write", interrupt)
        with pytest.raises(Interrupted):
            said.say(WANTED, 1)
    said.retry()
    assert heard(far) == [(WANTED, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for what is written to a pipe")
def test_an_interrupt_in_the_very_write_does_not_have_the_words_said_again(ends: Ends) -> None:
    said, far = ends
    handler, flags = signal.signal(signal.SIGIO, interrupt), fcntl.fcntl(far, fcntl.F_GETFL)
    fcntl.fcntl(far, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(far, fcntl.F_SETFL, flags | os.O_ASYNC)  # type: ignore[attr-defined]  # of Linux
    try:
        with pytest.raises(Interrupted):
            said.say(WANTED, 1)
    finally:
        fcntl.fcntl(far, fcntl.F_SETFL, flags)
        signal.signal(signal.SIGIO, handler)
    said.say(WANTED, 2)
    assert heard(far) == [(WANTED, 1), (WANTED, 2)]
