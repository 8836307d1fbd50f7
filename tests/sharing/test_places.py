"""Owns the tests of places in memory that others read: never two in one, and all of them free in the end."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Those
from hypothesis.stateful import RuleBasedStateMachine, consumes, invariant, multiple, rule

from dfserve.sharing.extents import GRAIN
from dfserve.sharing.places import GROWTH
from dfserve.sharing.pool import Pool
from dfserve.sharing.pool_file import HEAD

SIZE = 64 << 20
MIB = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    one = Pool(SIZE)
    yield one
    one.close()


def address(pool: Pool, memory: Any) -> int:
    found = pool.address_of(memory.data)
    assert found is not None
    return found


def taken(pool: Pool, nbytes: int) -> Any:
    memory = pool.take(nbytes)
    assert memory is not None
    return memory


def blocks_of(pool: Pool) -> int:
    """Bytes that the system has given."""
    return os.fstat(pool.file).st_blocks * 512


class Shared(RuleBasedStateMachine):
    """A worker that takes, lends and lets go, and a reader that gives back, in any order."""

    held = Those("held")
    lent = Those("lent")
    gone = Those("gone")

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(8 << 20)
        self.live: dict[int, tuple[int, int]] = {}  # bytes and contents by address: of what is held or lent
        self.leases: dict[int, Any] = {}
        self.read: Counter[int] = Counter()
        self.number = 0

    @rule(target=held, nbytes=st.integers(1, 3 << 20))
    def take(self, nbytes: int) -> Any:
        memory = self.pool.take(nbytes)
        if memory is None:
            return multiple()
        self.number += 1
        memory[:] = self.number % 251
        at = address(self.pool, memory)
        assert at not in self.live
        self.live[at] = (nbytes, self.number % 251)
        self.leases[at] = memory
        return at

    @rule(target=lent, at=held, part=st.floats(0.01, 1.0))
    def lend(self, at: int, part: float) -> Any:
        """Of what is lent again, the same bytes are used."""
        if at not in self.leases:
            return multiple()
        nbytes = self.live[at][0] if at in self.read else max(1, int(self.live[at][0] * part))
        self.pool.lend(at, nbytes)
        self.live[at] = (nbytes, self.live[at][1])
        self.read[at] += 1
        return at

    @rule(at=consumes(held))
    def let_go(self, at: int) -> None:
        if self.leases.pop(at, None) is not None and at not in self.read:
            del self.live[at]

    @rule(at=consumes(lent))
    def give_back(self, at: int) -> None:
        self.pool.give_back(at)
        if at in self.read:
            self.read[at] -= 1
            if not self.read[at]:
                del self.read[at]
                if at not in self.leases:
                    del self.live[at]

    @rule(at=st.integers(-GRAIN, 8 << 20))
    def hear_of_what_is_no_place(self, at: int) -> None:
        if at not in self.live:
            self.pool.give_back(at)

    @rule()
    def shrink(self) -> None:
        self.pool.shrink()

    @invariant()
    def places_are_apart_and_keep_what_was_written(self) -> None:
        end = 0
        for at, (nbytes, value) in sorted(self.live.items()):
            assert at >= max(end, HEAD)
            end = at + nbytes
            if at in self.leases:
                assert (self.leases[at][:nbytes] == value).all()
            else:
                assert os.pread(self.pool.file, nbytes, at) == bytes([value]) * nbytes

    def teardown(self) -> None:
        self.leases.clear()
        for at in self.read.elements():
            self.pool.give_back(at)
        whole = self.pool.take((8 << 20) - HEAD)
        assert whole is not None, "all is free in the end, in one piece"
        del whole
        self.pool.close()


TestPlaces = Shared.TestCase
TestPlaces.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_a_place_is_free_when_the_worker_has_let_go_and_the_reader_has_done(pool: Pool) -> None:
    memory = taken(pool, MIB)
    at = address(pool, memory)
    pool.lend(at, MIB)
    frame = memory.data[:100]
    del memory
    pool.give_back(at)
    other = taken(pool, MIB)
    assert address(pool, other) != at, "a frame of it is kept"
    pool.lend(address(pool, other), MIB)
    del frame
    assert address(pool, taken(pool, MIB)) == at


def test_a_place_that_is_read_is_not_used_again_though_nothing_here_refers_to_it(pool: Pool) -> None:
    memory = taken(pool, MIB)
    at = address(pool, memory)
    pool.lend(at, MIB)
    del memory
    assert address(pool, taken(pool, MIB)) != at
    pool.give_back(at)
    pool.give_back(at)  # a message may come twice
    one, two = taken(pool, MIB), taken(pool, MIB)
    assert address(pool, one) == at
    assert address(pool, two) != at


def test_what_is_not_used_of_a_place_is_free_when_the_rest_is_lent(pool: Pool) -> None:
    memory = taken(pool, 4 * MIB)
    at = address(pool, memory)
    pool.lend(at, MIB + 1)
    assert pool.used == MIB + GRAIN
    assert address(pool, taken(pool, MIB)) == at + MIB + GRAIN


def test_a_place_that_dies_in_another_thread_is_free(pool: Pool) -> None:
    kept = [taken(pool, MIB)]
    at = address(pool, kept[0])
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join(60)
    assert address(pool, taken(pool, MIB)) == at


def test_a_pool_is_closed_while_others_take_from_it() -> None:
    """They get a place, whose memory then is theirs, or none; never an error."""
    for _ in range(20):
        pool = Pool(SIZE)
        begun, errors = threading.Barrier(3), []

        def take(pool: Pool = pool, begun: threading.Barrier = begun, errors: list[Any] = errors) -> None:
            try:
                begun.wait(60)
                while (memory := pool.take(MIB // 2)) is not None:
                    memory[:] = 7
            except BaseException as error:  # whatever it is, the test tells
                errors.append(error)

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait(60)
        kept = pool.take(MIB)
        pool.close()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert kept is not None
        kept[:] = 3  # it keeps its memory
        assert (kept == 3).all()


def test_memory_that_is_not_used_any_more_is_returned_to_the_system(pool: Pool) -> None:
    many = [taken(pool, 4 * MIB) for _ in range(12)]
    for memory in many:
        memory[:] = 1
    assert blocks_of(pool) >= 48 * MIB
    first = many[0]
    many.clear()
    del memory
    pool.shrink()
    assert blocks_of(pool) <= GROWTH + HEAD
    assert (first == 1).all()
    again = taken(pool, 20 * MIB)  # it is reserved once more
    assert blocks_of(pool) >= 24 * MIB
    again[:] = 2
    assert (first == 1).all()


def test_nothing_is_returned_under_a_place_that_is_read(pool: Pool) -> None:
    low, high = taken(pool, 20 * MIB), taken(pool, 20 * MIB)
    high[:] = 9
    at = address(pool, high)
    pool.lend(at, 20 * MIB)
    del low, high
    pool.shrink()
    assert os.pread(pool.file, 20 * MIB, at) == b"\x09" * (20 * MIB)
    pool.give_back(at)
    pool.shrink()
    assert blocks_of(pool) <= GROWTH + HEAD


def test_what_is_reserved_is_not_all_that_could_be_used(pool: Pool) -> None:
    memory = taken(pool, 1000)
    memory[:] = 1
    assert blocks_of(pool) <= GROWTH + HEAD
    pool.shrink()
    assert (memory == 1).all()


def test_a_system_without_memory_ends_the_growth_and_is_said_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    kept = taken(pool, MIB)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "posix_fallocate", full)
        assert pool.take(GROWTH) is None
        assert pool.take(GROWTH) is None
        assert taken(pool, MIB) is not None  # of what there is
    assert [record.message.count("go through the socket") for record in caplog.records] == [1]
    assert pool.take(SIZE // 2) is None  # nor later, while it is used: asking takes time
    assert kept is not None


def test_what_was_returned_after_the_system_was_full_may_be_had_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    for _ in range(2):
        many = [taken(pool, 4 * MIB) for _ in range(10)]
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(os, "posix_fallocate", full)
            assert pool.take(16 * MIB) is None
        many.clear()
        pool.shrink()
        assert blocks_of(pool) <= GROWTH + HEAD
    assert len(caplog.records) == 1


def test_another_error_of_the_system_is_not_taken_for_a_full_one(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", broken)
        with pytest.raises(OSError, match="Input/output"):
            pool.take(MIB)
    assert pool.used == 0
    assert pool.take(SIZE - HEAD) is not None


def test_memory_elsewhere_has_no_address_here(pool: Pool) -> None:
    with mmap.mmap(-1, MIB) as other:
        assert pool.address_of(memoryview(other)) is None
    assert pool.address_of(np.zeros(MIB, np.uint8).data) is None
    memory = taken(pool, MIB)
    assert pool.address_of(memory.data[5:]) == address(pool, memory) + 5
