"""Owns the tests of compressed blocks: what goes over the wire, and what is made of it, whoever sent it."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import messages as m
from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.codecs import NAMES, installed
from dfserve.wire.compression import SMALLEST, Compressed, compress
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import PIECE, cut, join
from dfserve.wire.recycler import Recycler

CODECS = installed()
LZ4 = CODECS["lz4"]
NOISE = random.Random(1).randbytes(5000)
frames = st.lists(
    st.one_of(
        st.binary(max_size=50),
        st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=9), st.integers(1, 500)),
        st.just(NOISE),
    ),
    min_size=1,
    max_size=8,
)


def packed(*how: Any) -> bytes:
    return bytes(msgpack.packb(list(how)))


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Any:
    return CODECS[request.param]


@given(frames, st.sampled_from(NAMES))
def test_frames_come_back_as_they_were_and_their_lengths_are_known_before(block: list[bytes], name: str) -> None:
    sent = compress(block, CODECS[name])
    if sent is None:
        return
    found = Compressed(sent, CODECS)
    assert [len(length) for length in found] == [len(frame) for frame in block]
    assert found.on_wire == sum(map(len, sent))
    assert [bytes(frame) for frame in found.decompressed()] == block


@given(st.binary(max_size=100), st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_the_bytes_are_they_are_read_or_refused(how: bytes, block: list[bytes]) -> None:
    with contextlib.suppress(WireError):
        Compressed([how, *block], CODECS).decompressed()


@given(st.lists(st.integers(0, 3000), max_size=5), st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_sizes_are_said_the_frames_have_them_or_are_refused(sizes: list[int], block: list[bytes]) -> None:
    with contextlib.suppress(WireError):
        found = Compressed([packed("zstd", *sizes), *block], CODECS)
        assert [len(frame) for frame in found.decompressed()] == [len(length) for length in found]


def test_a_block_in_pieces_is_decompressed_and_joined_to_the_same(codec: Any) -> None:
    datapoint = [np.arange(PIECE // 2, dtype=np.int32), "x" * 5000, np.arange(10)]
    parts, counts = cut(encode_block([datapoint]).frames)
    assert max(counts) == 2
    sent = compress(parts, codec)
    assert sent is not None
    assert len(sent) == len(parts) + 1
    whole = join(Compressed(sent, CODECS).decompressed(), counts, DEFAULT_LIMITS, Recycler())
    (found,) = decode_block(whole)
    assert repr(found) == repr(datapoint)


def test_what_is_small_or_does_not_shrink_travels_as_it_is(codec: Any) -> None:
    assert compress([b"x" * (SMALLEST - 1), NOISE], codec) is None
    sent = compress([b"x" * (SMALLEST - 1), NOISE, b"x" * SMALLEST], codec)
    assert sent is not None
    how, small, noise, shrunk = sent
    assert msgpack.unpackb(how) == [codec.name, 0, 0, SMALLEST]
    assert (small, noise) == (b"x" * (SMALLEST - 1), NOISE)
    assert len(shrunk) < SMALLEST


def test_a_block_of_as_many_frames_as_a_message_may_have_travels_as_it_is() -> None:
    block = [b"x" * SMALLEST] * (DEFAULT_LIMITS.max_frames - 2)
    assert compress(block, LZ4) is None
    assert compress(block[1:], LZ4) is not None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([], "frames"),
        ([packed("lz4")], "frames"),
        ([packed("lz4", 5), b"a", b"b"], "frames"),
        ([packed("lz4", 5, 5), b"a"], "body"),  # a longer list than there are frames is not read
        ([packed("lz4", PIECE + 1), b"a"], "limits"),
        ([packed("lz4", 1 << 60), b"a"], "limits"),
        ([packed("lz4", -1), b"a"], "body"),
        ([packed("lz4", True), b"a"], "body"),
        ([packed("lz4", 1.0), b"a"], "body"),
        ([packed(7, 5), b"a"], "body"),
        ([packed("gzip", 5), b"a"], "body"),
        ([packed(), b"a"], "body"),
        ([msgpack.packb({"lz4": 0, 5: 0}), b"a"], "body"),
        ([packed("lz4", 5) + bytes(100), b"a"], "limits"),
        ([packed("l" * 100, 5), b"a"], "limits"),
        ([b"\xff", b"a"], "body"),
        ([b"", b"a"], "body"),
    ],
)
def test_what_is_no_compressed_block_is_refused_before_anything_is_decompressed(sent: list[bytes], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        Compressed(sent, CODECS)
    assert caught.value.reason == reason


def test_a_codec_that_was_not_announced_is_refused() -> None:
    sent = compress([b"x" * 5000], LZ4)
    assert sent is not None
    with pytest.raises(WireError, match="'lz4', which was not announced"):
        Compressed(sent, {})


def test_a_header_says_whether_the_block_is_compressed() -> None:
    for message in (m.Block(1, 1), m.Finish(1)):
        plain, flagged = m.encode(message)[0], m.encode(message, compressed=True)[0]
        assert not m.is_compressed(plain)
        assert m.is_compressed(flagged) is message.CARRIES_BLOCK
        assert m.without_compression(flagged) == plain
        with pytest.raises(WireError, match="unknown kind"):
            m.decode(flagged, m.encode(message)[1], int(message.CARRIES_BLOCK))
    assert not m.is_compressed(b"")
    assert not m.is_compressed(m.encode(m.Block(1, 1), in_memory=True, compressed=True)[0])
