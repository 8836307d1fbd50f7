"""Owns the tests of the codecs: what one frame becomes and what it is again, whatever was sent."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import ConfigError, WireError
from dfserve.wire.codecs import NAMES, codec_of, installed

MIB = 1 << 20
CODECS = installed()
codecs = st.sampled_from([CODECS[name] for name in NAMES])
contents = st.one_of(
    st.binary(max_size=3000),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=9), st.integers(1, 500)),
)


@given(codecs, contents.filter(bool))
def test_what_was_compressed_is_decompressed_to_the_same(codec: object, content: bytes) -> None:
    assert codec.decompress(codec.compress(content), len(content)) == content  # type: ignore[attr-defined]


@given(codecs, contents.filter(bool), st.integers(-3, 3).filter(bool))
def test_another_size_than_was_said_is_refused(codec: object, content: bytes, more: int) -> None:
    with pytest.raises(WireError) as caught:
        codec.decompress(codec.compress(content), max(0, len(content) + more))  # type: ignore[attr-defined]
    assert caught.value.reason == "body"


@given(codecs, st.binary(max_size=500), st.integers(1, 1 << 16))
def test_any_bytes_become_so_many_or_are_refused(codec: object, data: bytes, nbytes: int) -> None:
    with contextlib.suppress(WireError):
        assert len(codec.decompress(data, nbytes)) == nbytes  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_half_of_a_frame_is_refused(name: str) -> None:
    codec = CODECS[name]
    whole = codec.compress(b"half of it" * 1000)
    with pytest.raises(WireError, match=f"no {name}|{name} gives"):
        codec.decompress(whole[: len(whole) // 2], 10_000)


@pytest.mark.parametrize(
    "bomb",
    [
        zstandard.ZstdCompressor().compress(bytes(256 * MIB)),  # says so in its head
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(256 * MIB)),
        zstandard.ZstdCompressor().compress(bytes(1000)) + zstandard.ZstdCompressor().compress(bytes(256 * MIB)),
        lz4.block.compress(bytes(256 * MIB), store_size=False),
    ],
    ids=["sized", "unsized", "second frame", "lz4"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_takes_no_more_memory_than_was_granted(name: str, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            CODECS[name].decompress(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "package"), [("lz4", "lz4"), ("zstd", "zstandard")])
def test_a_missing_package_is_an_error_that_says_what_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"the package {package}: pip install 'dfserve\[{name}\]'"):
        codec_of(name)
    assert set(installed()) == set(NAMES) - {name}


def test_a_codec_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="compression is 'gzip'; it is one of lz4, zstd, or None"):
        codec_of("gzip")
