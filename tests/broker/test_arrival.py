"""Owns the tests of a block's arrival: what is decompressed, what is inspected, and what is only measured."""

from __future__ import annotations

from typing import Any

import pytest

from dfserve.broker.arrival import arrived
from dfserve.broker.budget import charge_of
from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.errors import WireError
from dfserve.wire import messages as m
from dfserve.wire.blocks import encode_block
from dfserve.wire.codecs import Codec, codec_of
from dfserve.wire.compression import Compressed, compress
from dfserve.wire.limits import DEFAULT_LIMITS

BLOCK = [bytes(frame) for frame in encode_block([[bytes(5000)], [bytes(5000)]]).frames]
NBYTES = sum(map(len, BLOCK))


class Counting:
    """zstd, and how often something was decompressed with it."""

    def __init__(self) -> None:
        self.codec = codec_of("zstd")
        self.times = 0

    @property
    def by_name(self) -> dict[str, Codec]:
        return {"zstd": Codec("zstd", self.codec.compress, self._expand)}

    def _expand(self, data: Any, nbytes: int) -> bytes:
        self.times += 1
        return self.codec.expand(data, nbytes)

    def sent(self) -> list[Any]:
        return compress(BLOCK, self.codec) or []


def never(_nbytes: int) -> bool:
    pytest.fail("it is not compressed")


def test_a_block_as_it_is_is_inspected_and_kept() -> None:
    found = arrived(BLOCK, [], 2, DEFAULT_LIMITS, never)
    assert (found.frames, found.nbytes, found.on_wire) == (BLOCK, NBYTES, NBYTES)


def test_a_compressed_block_that_was_granted_is_decompressed() -> None:
    zstd = Counting()
    asked: list[int] = []
    sent = zstd.sent()
    found = arrived(
        Compressed(sent, zstd.by_name),
        [],
        2,
        DEFAULT_LIMITS,
        lambda nbytes: not asked.append(nbytes),  # type: ignore[func-returns-value]
    )
    assert (found.frames, found.nbytes, found.on_wire) == (BLOCK, NBYTES, sum(map(len, sent)))
    assert asked == [NBYTES]


def test_a_compressed_block_that_was_not_granted_is_measured_and_no_more() -> None:
    zstd = Counting()
    found = arrived(Compressed(zstd.sent(), zstd.by_name), [], 2, DEFAULT_LIMITS, lambda _nbytes: False)
    assert (sum(map(len, found.frames)), found.nbytes, zstd.times) == (NBYTES, NBYTES, 0)


def test_a_block_with_another_count_is_refused_compressed_or_not() -> None:
    zstd = Counting()
    for frames in (BLOCK, Compressed(zstd.sent(), zstd.by_name)):
        with pytest.raises(WireError, match="a block of 2 datapoints was announced as 3"):
            arrived(frames, [], 3, DEFAULT_LIMITS, lambda _nbytes: True)


def test_a_core_decompresses_what_it_granted_once_and_nothing_that_comes_again() -> None:
    zstd = Counting()
    core = Core(BrokerConfig(), lambda: 0.0, codecs=zstd.by_name)
    core.tick(0.0)
    core.receive(b"w", m.encode(m.ProducerHello(b"s" * 16, "w", "h", 1, "default", 0, 1, b"", 0, 0)))
    ((_, welcome, _),) = core.drain()
    assert isinstance(welcome, m.ProducerWelcome)
    assert welcome.codecs == ["zstd"]
    core.receive(b"w", m.encode(m.Offer(1, [NBYTES])))
    core.drain()
    for _ in range(3):
        core.receive(b"w", [*m.encode(m.Block(1, 2), compressed=True), *zstd.sent()])
    assert (core.tally.duplicate, zstd.times) == (2, 1)
    tally = core.tally.producer("w")
    assert (tally.nbytes, tally.on_wire) == (NBYTES, sum(map(len, zstd.sent())))
    assert core.budget.used == charge_of(NBYTES)
    (entry,) = core.jobs["default"].backlog
    assert list(entry.frames) == BLOCK
