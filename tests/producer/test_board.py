"""Owns the tests of the counters that workers share with their supervisor."""

from __future__ import annotations

import os

import pytest

from dfserve.producer.board import Board, Counters


def test_a_new_board_counts_nothing() -> None:
    board = Board(2)
    assert [board.read(slot) for slot in range(2)] == [Counters(), Counters()]


def test_slots_do_not_mix() -> None:
    board = Board(3)
    rows = [Counters(*(10.0 * slot + field for field in range(5))) for slot in range(3)]
    for slot, row in enumerate(rows):
        board.write(slot, row)
    assert [board.read(slot) for slot in range(3)] == rows


def test_counts_are_exact_up_to_those_of_petabytes() -> None:
    board = Board(1)
    board.write(0, Counters(nbytes=2**53 - 1))
    assert board.read(0).nbytes == 2**53 - 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of tests that ran before; it ends at once
def test_what_a_forked_child_writes_is_read_by_its_parent() -> None:
    board = Board(2)
    pid = os.fork()
    if pid == 0:
        board.write(1, Counters(datapoints=42, passes=3))
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.read(1) == Counters(datapoints=42, passes=3)
    assert board.read(0) == Counters()


def test_where_a_worker_is_is_noted_beside_its_counters() -> None:
    board = Board(2)
    board.write(1, Counters(datapoints=42))
    assert board.place(1) is None
    board.note(1, 2, 3)(0)
    assert board.place(1) == (2, 3, 0)
    board.note(1, 0, 2**40)(2**53 - 1)
    assert (board.place(0), board.place(1)) == (None, (0, 2**40, 2**53 - 1))
    board.note(1, 0, 2**40)(-1)
    assert board.place(1) is None
    assert board.read(1) == Counters(datapoints=42)
