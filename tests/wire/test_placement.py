"""Owns the tests of the frames that speak of shared memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import messages as m
from dfserve.wire.messages import MAX_INT
from dfserve.wire.placement import Place, pack_freed, pack_place, unpack_freed, unpack_place

numbers = st.integers(0, MAX_INT - 1)


@given(
    st.binary(min_size=16, max_size=16), st.lists(st.none() | st.tuples(st.integers(1, 1 << 50), numbers), min_size=1)
)
def test_a_place_is_read_as_it_was_written(pool: bytes, spans: list[tuple[int, int] | None]) -> None:
    place = Place(pool, spans)
    assert unpack_place(pack_place(place)) == place


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.lists(numbers, min_size=1, max_size=5), max_size=4))
def test_freed_places_are_read_as_they_were_written(freed: dict[bytes, list[int]]) -> None:
    assert unpack_freed(pack_freed(freed)) == freed


@given(st.binary(max_size=200), st.sampled_from([unpack_place, unpack_freed]))
def test_whatever_the_bytes_are_they_are_read_or_refused(frame: bytes, read: Callable[[bytes], object]) -> None:
    with contextlib.suppress(WireError):
        read(frame)


NONCE = bytes(16)


@pytest.mark.parametrize(
    "frame",
    [
        b"\x91\x00",
        b"\x92\x00\xff",
        b"\x92\xc3\x01",
        b"\xa1x",
        b"\x90",
        pack_freed({NONCE: [1] * 70_000}),
        pack_freed({NONCE: [1, 2, 3]}),
        pack_freed({NONCE: [1, 2], bytes(15) + b"x": [1, 2]}),
        b"\x92\x01\x02",
        pack_freed({b"short": [1, 2]}),
    ],
)
def test_what_is_no_place_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        unpack_place(frame)


def test_a_header_says_whether_the_block_lies_in_shared_memory() -> None:
    message = m.Deliver(1, 1, 0, "w", again=False)
    plain, shared = m.encode(message)[0], m.encode(message, in_memory=True)[0]
    assert not m.is_in_memory(plain)
    assert m.is_in_memory(shared)
    assert m.without_memory(shared) == plain
    with pytest.raises(WireError, match="unknown kind"):
        m.decode(shared, m.encode(message)[1], 1)
