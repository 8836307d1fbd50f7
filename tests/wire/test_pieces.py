"""Owns the tests of cutting frames into pieces, and of the memory in which they are joined."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import pieces
from dfserve.wire import recycler as recycler_module
from dfserve.wire.blocks import decode_block, encode_block, inspect_block
from dfserve.wire.limits import DEFAULT_LIMITS, Limits
from dfserve.wire.pieces import cut, join, measure
from dfserve.wire.recycler import KEEP, STEP, Recycler


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at 100 bytes, so that small examples have many pieces."""
    monkeypatch.setattr(pieces, "PIECE", 100)


@given(st.lists(st.binary(max_size=450), min_size=1, max_size=6))
def test_frames_that_were_cut_are_joined_to_the_same(frames: list[bytes]) -> None:
    parts, counts = cut(frames)
    assert all(len(part) <= 100 for part in parts)
    assert [bytes(frame) for frame in join(parts, counts, DEFAULT_LIMITS, Recycler())] == frames
    assert [len(frame) for frame in measure(parts, counts, DEFAULT_LIMITS)] == [len(frame) for frame in frames]


def test_frames_that_are_small_are_left_alone() -> None:
    assert cut([b"x" * 100, b""]) == ([b"x" * 100, b""], [])


@pytest.mark.parametrize("datapoint", [[np.arange(1000), 5], ["x" * 1000, np.arange(3)], [{"deep": [np.arange(2000)]}]])
def test_a_block_in_pieces_is_inspected_without_joining_and_decoded_equal(datapoint: list[object]) -> None:
    block = encode_block([datapoint])
    parts, counts = cut(block.frames)
    assert counts
    assert inspect_block(measure(parts, counts, DEFAULT_LIMITS)) == 1
    (found,) = decode_block(join(parts, counts, DEFAULT_LIMITS, Recycler()))
    assert repr(found) == repr(datapoint)


@pytest.mark.parametrize("counts", [[1], [3], [1, 0, 1], [2, 2], [0, 2]])
def test_counts_that_do_not_describe_the_pieces_are_refused(counts: list[int]) -> None:
    for read in (lambda: measure([b"a", b"b"], counts, DEFAULT_LIMITS), lambda: _join([b"a", b"b"], counts)):
        with pytest.raises(WireError, match="pieces cannot make"):
            read()


def _join(parts: list[bytes], counts: list[int], limits: Limits = DEFAULT_LIMITS) -> list[object]:
    return join(parts, counts, limits, Recycler())


def test_a_joined_frame_over_the_limit_is_refused_before_memory_is_taken_for_it() -> None:
    with pytest.raises(WireError, match="a frame of 300 bytes exceeds 299"):
        _join([b"x", b"x" * 100, b"x" * 200], [1, 2], Limits(max_frame=299))
    with pytest.raises(WireError, match="a body of 300 bytes exceeds 299"):
        _join([b"x" * 100, b"x" * 200], [2], Limits(max_body=299))


def test_a_joined_frame_is_read_only() -> None:
    (frame,) = _join([b"x" * 100, b"y"], [2])
    assert isinstance(frame, memoryview)
    assert frame.readonly


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    recycler = Recycler()
    lease = recycler.take(STEP)
    place = lease.ctypes.data
    view = np.frombuffer(lease.data[10:20], np.uint8)[2:]
    del lease
    gc.collect()
    assert recycler.take(STEP).ctypes.data != place, "a view still refers to it"
    del view
    assert recycler.take(STEP - 5).ctypes.data == place


def test_idle_memory_of_many_sizes_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycler_module, "IDLE_BYTES", 10 * STEP)
    recycler = Recycler()
    for size in range(1, 8):
        for _ in range(3):
            recycler.take(size * STEP)
            assert sum(len(idle) * nbytes for nbytes, idle in recycler._idle.items()) <= 10 * STEP


def test_idle_memory_is_bounded() -> None:
    recycler = Recycler()
    leases = [recycler.take(1) for _ in range(3 * KEEP)]
    places = {lease.ctypes.data for lease in leases}
    leases.clear()
    again = [recycler.take(1) for _ in range(3 * KEEP)]
    assert len({lease.ctypes.data for lease in again} & places) >= KEEP
    assert sum(len(idle) for idle in recycler._idle.values()) == 0
