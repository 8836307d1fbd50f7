"""Tests of the words to a worker: how many gather, and that none gathers while it waits."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
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
