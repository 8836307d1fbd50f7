"""Owns the tests of the short way into a block: it makes the same blocks as the long one, byte for byte."""

from __future__ import annotations

import enum
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfserve.errors import EncodeError
from dfserve.wire import builder as builders
from dfserve.wire import lane
from dfserve.wire.blocks import BlockBuilder, decode_block
from dfserve.wire.limits import Limits


class Label(enum.IntEnum):
    CAT = 3


class Key(str):
    """Equal to a text, and another type."""

    __slots__ = ()


TOKENS = np.arange(40, dtype=np.int32)
LIKE: dict[str, Callable[[int], Any]] = {
    "short array": lambda n: TOKENS + n,
    "short array of complex": lambda n: np.full(3, 1j * n),
    "short array of halves": lambda n: np.full(3, n, np.float16),
    "short array of booleans": lambda n: np.full(3, n % 2 > 0),
    "short array, big-endian": lambda n: np.arange(n, n + 4, dtype=">i8"),
    "short array, every other": lambda n: np.arange(n, n + 8.0)[::2],
    "long array": lambda n: np.full(20_000, n),
    "empty array": lambda _: np.zeros(0),
    "image": lambda n: np.full((4, 5, 3), n % 256, np.uint8),
    "image, transposed": lambda n: np.full((4, 5), n).T,
    "0-d": lambda n: np.array(n),
    "dates": lambda n: np.array([n], "<M8[D]"),
    "records": lambda n: np.array([(n % 256, 1.0)], np.dtype([("a", "u1"), ("b", "<f8")], align=True)),
    "texts": lambda n: np.array([str(n % 10)]),
    "numpy scalar": np.float32,
    "numpy date": lambda n: np.datetime64(n, "D"),
    "int": lambda n: n * 7**n % (1 << 64) - (1 << 62) * (n % 3),
    "float": lambda n: [0.5, -0.0, float("nan"), float("inf")][n % 4],
    "bool": lambda n: n % 3 == 0,
    "None": lambda _: None,
    "str": lambda n: "word " * (n % 20),
    "bytes": lambda n: b"\xff" * (n % 30),
    "list": lambda n: [n, [n]],
}
ODD: list[Any] = [
    1 << 64, -(1 << 63) - 1, (1 << 64) - 1, -(1 << 63), 2**700, True, False, None, 1.0, -0.0, float("nan"), 7,
    Label.CAT, np.int64(3), np.float32(2), np.datetime64(5, "s"), np.str_("x"), "größe", "\udc80", "x" * 9999,
    b"x" * 9999, [1], (), object(),
    TOKENS.astype("i8"), TOKENS[:5], TOKENS[:1], TOKENS.reshape(5, 8), TOKENS.astype(">i4"),
    np.array(3, np.int32), np.frombuffer(b"\0" * 161, "<i4", 40, 1), np.array([None]), np.ma.masked_array(TOKENS),
    np.full((4, 5, 1), 1, np.uint8), np.zeros(0), np.zeros(0, "<f4"),
]  # fmt: skip


def datapoints_of(names: list[str], kind: type, count: int) -> list[Any]:
    rows = [[LIKE[name](n) for name in names] for n in range(count)]
    return [dict(zip("abcdef", row, strict=False)) if kind is dict else kind(row) for row in rows]


def story(builder: BlockBuilder, datapoints: list[Any]) -> list[Any]:
    """Return what happens to the datapoints one after the other, and all blocks."""
    found: list[Any] = []
    for datapoint in datapoints:
        for _ in range(2):
            try:
                taken = builder.add(datapoint)
            except EncodeError as error:
                found.append(str(error))
                break
            found.append((taken, builder.count, builder.full))
            if taken:
                break
            found.append(closed(builder))
    return [*found, closed(builder) if builder.count else None]


def closed(builder: BlockBuilder) -> tuple[int, int, list[bytes]]:
    nbytes = builder.nbytes
    block = builder.close()
    return nbytes, block.count, [bytes(frame) for frame in block.frames]


@pytest.fixture(scope="module", autouse=True)
def _short_lanes() -> Iterator[None]:
    """Make lanes also where they are not worth it, so that a few datapoints do for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "LEAST_ROWS", 4)
        patch.setattr(builders, "LEAST_ROWS", 4)
        yield


@pytest.fixture(scope="module")
def without_lanes() -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a function while no block has a lane."""

    def call(function: Callable[[], Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builders, "lane_of", lambda *_: None)
            return function()

    return call


def taken_share(datapoints: list[Any]) -> float:
    builder = BlockBuilder(1 << 30)
    builder.add(datapoints[0])
    return sum(map(builder.take, datapoints[1:])) / len(datapoints[1:])


@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("name", LIKE)
def test_datapoints_alike_make_the_same_blocks_as_without_lanes(name, kind, without_lanes):
    for names in ([name], ["short array", name], [name, "int"], ["image", name, "str", "int"]):
        datapoints = datapoints_of(names, kind, 300)
        for size in (3000, 1 << 20):
            expected = without_lanes(lambda size=size, rows=datapoints: story(BlockBuilder(size), rows))
            assert story(BlockBuilder(size), datapoints) == expected
        if name not in ("list", "numpy date", "empty array"):  # which have no lane, or none alone
            assert taken_share(datapoints) == 1


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """Draw datapoints that are alike, with some that are not."""
    names = draw(st.lists(st.sampled_from(sorted(LIKE)), min_size=1, max_size=4))
    kind = draw(st.sampled_from([list, tuple, dict]))
    found: list[Any] = []
    for count in draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)):
        found += datapoints_of(names, kind, count)
        odd = draw(st.sampled_from(ODD))
        row = list(datapoints_of(names, list, 1)[0])
        row[draw(st.integers(0, len(names) - 1))] = odd
        shape = draw(st.sampled_from(["same", "same", "longer", "shorter", "other kind", "other key"]))
        row = [*row, 1] if shape == "longer" else row[1:] if shape == "shorter" else row
        keys = [Key("a"), *"bcdef"] if shape == "other key" else "abcdef"
        of = tuple if kind is list and shape == "other kind" else kind
        found.append(dict(zip(keys, row, strict=False)) if of is dict else of(row))
    return found


@settings(max_examples=200, deadline=None)
@given(
    datapoints=streams(),
    size=st.integers(1, 30_000),
    most=st.integers(1, 50),
    limits=st.sampled_from([Limits(), Limits(max_frame=2000), Limits(max_body=300), Limits(max_frames=6)]),
    mixed=st.booleans(),
)
def test_any_stream_has_the_same_story_as_without_lanes(datapoints, size, most, limits, mixed, without_lanes):
    def told() -> list[Any]:
        return story(BlockBuilder(size, most, limits, mixed=mixed), datapoints)

    assert told() == without_lanes(told)


@pytest.mark.parametrize("names", [["short array", "int"], ["long array", "short array", "str"]])
def test_what_was_taken_is_not_changed_by_what_the_pipeline_does_later(names):
    builder = BlockBuilder(1 << 30)
    (datapoint,) = datapoints_of(names, list, 1)
    for n in range(50):
        datapoint[0][:] = n
        assert builder.take(datapoint) or not n
        if not n:
            builder.add(datapoint)
    assert [row[0].tolist() for row in decode_block(builder.close().frames)] == [
        [n] * len(datapoint[0]) for n in range(50)
    ]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{type(odd).__name__} {odd!r:.20}")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_datapoint_that_is_not_taken_leaves_no_trace(odd, place, same):
    good = [{"a": TOKENS + n, "b": n, "c": TOKENS * 1.0} for n in range(20)]
    builder = BlockBuilder()
    assert builder.add(good[0])
    assert all(map(builder.take, good[1:10]))
    wrong = dict(good[0])
    wrong["abc"[place]] = odd
    if not builder.take(wrong):
        assert builder.count == 10
        assert all(map(builder.add, good[10:]))
        assert same(decode_block(builder.close().frames), good)


def test_nothing_is_taken_before_the_first_datapoint_nor_after_the_block_was_closed():
    builder = BlockBuilder()
    assert not builder.take([TOKENS, 1])
    builder.add([TOKENS, 1])
    take = builder.take
    assert take([TOKENS, 2])
    assert builder.close().count == 2
    assert not take([TOKENS, 3])
    assert not builder.take([TOKENS, 3])
    assert builder.count == 0


def test_no_more_bytes_are_taken_than_was_said():
    builder = BlockBuilder(1 << 30, 65536, take_bytes=100_000)
    builder.add([TOKENS, 1])
    while builder.take([TOKENS, 1]):
        pass
    assert 90_000 < builder.nbytes < 100_000
    assert builder.add([TOKENS, 1])


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
@pytest.mark.parametrize("names", [["short array", "int"], ["long array", "short array"]])
def test_blocks_that_another_thread_closes_hold_every_datapoint_once_and_in_order(names):
    builder, building, blocks, over = BlockBuilder(1 << 30), threading.Lock(), [], threading.Event()

    def close_often() -> None:
        while not over.is_set():
            with building:
                if builder.count:
                    blocks.append(builder.close())

    thread = threading.Thread(target=close_often)
    thread.start()
    (datapoint,) = datapoints_of(names, list, 1)
    try:
        for n in range(3000):
            datapoint[0][:] = n
            if not builder.take(datapoint):
                with building:
                    if not builder.add(datapoint):  # 1024 are in it
                        blocks.append(builder.close())
                        builder.add(datapoint)
    finally:
        over.set()
        thread.join(60)
    if builder.count:
        blocks.append(builder.close())
    assert len(blocks) > 1
    rows = [row for block in blocks for row in decode_block(block.frames)]
    assert [int(row[0][0]) for row in rows] == list(range(3000))
    assert all((row[0] == row[0][0]).all() for row in rows)


class Interruption(BaseException):
    """What Ctrl-C raises, here."""


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread has signals"
)
@pytest.mark.parametrize("names", [["short array", "int"], ["long array", "short array"]])
def test_a_block_can_be_closed_after_ctrl_c_in_the_middle_of_a_datapoint(names):
    rang: list[int] = []

    def interrupt(*_: object) -> None:
        rang.append(attempt)
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # a finaliser that runs in the middle would swallow the interruption
    try:
        for attempt in range(100):
            builder = BlockBuilder(1 << 30)
            (datapoint,) = datapoints_of(names, list, 1)
            builder.add(datapoint)
            n = 0
            with suppress(Interruption):
                signal.setitimer(signal.ITIMER_REAL, 50e-6 + attempt * 1e-6)
                while attempt not in rang:
                    if builder.take(datapoint):
                        n += 1
                        datapoint[0][:] = n
            assert rang[-1:] == [attempt]
            rows = [int(row[0][0]) for row in decode_block(builder.close().frames)]
            assert rows == [0, *range(len(rows) - 1)]
            assert len(rows) - 1 in (n, n + 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
