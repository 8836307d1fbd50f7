"""The fast lane for plain blocks does what the general way does, or leaves the block to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.errors import WireError
from dfserve.wire import plain_block
from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.builder import BlockBuilder
from dfserve.wire.copies import writable
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.plain_block import lend_datapoint, read_datapoint, view_datapoint

Same = Callable[[Any, Any], bool]

dtypes = st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes()).filter(lambda dtype: dtype.char not in "gG")
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
scalars = hnp.arrays(hnp.scalar_dtypes().filter(lambda dtype: dtype.char not in "gG"), ()).map(lambda array: array[()])
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
values = st.one_of(arrays, scalars, plain, st.lists(plain, max_size=3), st.tuples(plain, arrays))
datapoints = st.one_of(
    st.lists(values, max_size=4),
    st.lists(values, max_size=4).map(tuple),
    st.dictionaries(st.one_of(st.text(), st.integers(), st.binary()), values, max_size=4),
)


def frames_of(datapoint: Any) -> list[memoryview]:
    return [memoryview(bytes(frame)) for frame in encode_block([datapoint]).frames]


@given(datapoints)
def test_any_datapoint_comes_back_as_by_the_general_way(datapoint: Any) -> None:
    frames = frames_of(datapoint)
    found, general = read_datapoint(frames, DEFAULT_LIMITS), writable(decode_block(frames)[0])
    assert encode_block([found]).frames == encode_block([general]).frames == frames


@pytest.mark.parametrize(
    "datapoint",
    [
        [np.arange(6).reshape(2, 3), 1, "text", b"bytes", None, 0.5, True],
        (np.zeros((0, 3), ">f4"), np.float32(2), np.array(7)),
        {"image": np.zeros((3, 2, 3), np.uint8), "label": 3},
        [],
        {},
    ],
)
def test_a_plain_datapoint_does_not_go_the_general_way(
    datapoint: Any, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_of(datapoint)
    monkeypatch.setattr(plain_block, "decode_block", lambda *_: pytest.fail("the general way"))
    assert same(read_datapoint(frames, DEFAULT_LIMITS), datapoint)


def test_arrays_may_be_changed_and_outlive_the_frames(same: Same) -> None:
    memory = [bytearray(frame) for frame in frames_of([np.arange(4), [np.arange(2)], {"a": np.zeros(9999)}])]
    first, (second,), third = read_datapoint([memoryview(frame) for frame in memory], DEFAULT_LIMITS)
    for frame in memory:
        frame[:] = b"\xff" * len(frame)
    first += 1
    second += 1
    third["a"] += 1
    assert same([first, second, third["a"]], [np.arange(4) + 1, np.arange(2) + 1, np.ones(9999)])


def body(*columns: Any, count: Any = 1, kind: Any = 0, keys: Any = None) -> memoryview:
    return memoryview(msgpack.packb([count, kind, keys, list(columns)]))


EIGHT = memoryview(bytes(8))


@pytest.mark.parametrize(
    "frames",
    [
        [memoryview(b"")],
        [memoryview(b"\xc1")],
        [memoryview(b"\xdd\xff\xff\xff\xff")],
        [memoryview(msgpack.packb([1, 0, None]))],
        [memoryview(msgpack.packb({"a": 1}))],
        [body([1, "|u1", [8], 1, False])],  # the frame is missing
        [body([1, "|u1", [8], 1, False]), EIGHT, EIGHT],  # one too many
        [body([1, "|u1", [8], 2, False]), EIGHT],
        [body([1, "|u1", [8], 1, False], [1, "|u1", [8], 1, False]), EIGHT],
        [body([1, "|u1", [7], 1, False]), EIGHT],
        [body([1, "|u1", [9], 1, False]), EIGHT],
        [body([1, "|u1", [-8], 1, False]), EIGHT],
        [body([1, "|u1", [1 << 62, 1 << 62], 1, False]), EIGHT],
        [body([1, "|O8", [1], 1, False]), EIGHT],
        [body([1, "O", [1], 1, False]), EIGHT],
        [body([1, "<f8", [1], 1, True]), EIGHT],
        [body([1, "<U2", [], 1, True]), EIGHT],
        [body([0, [1, 2]])],
        [body([0, []])],
        [body([0])],
        [body([3, [1]])],
        [body(1)],
        [body([0, [1]], count=0)],
        [body([0, [1, 2]], count=2)],
        [body([0, [1]], kind=3)],
        [body([0, [1]], keys=["a"])],
        [body([0, [1]], kind=1, keys=["a"])],
        [body([0, [1]], kind=2)],
        [body([0, [1]], kind=2, keys=["a", "b"])],
        [body([0, [1]], [0, [2]], kind=2, keys=["a", "a"])],
        [body([0, [1]], kind=2, keys="a")],
    ],
)
def test_what_is_no_block_of_one_datapoint_is_refused(frames: list[memoryview]) -> None:
    with pytest.raises(WireError):
        read_datapoint(frames, DEFAULT_LIMITS)


@pytest.mark.parametrize(("right", "wrong"), [(b"\xc2", b"\xe2"), (b"\xc2", b"\x00")])
def test_whether_a_value_is_a_scalar_is_a_bool_and_nothing_like_one(right: bytes, wrong: bytes) -> None:
    frames = frames_of([np.array(False)])
    damaged = bytes(frames[0])
    assert damaged.endswith(right)
    frames[0] = memoryview(damaged[:-1] + wrong)
    with pytest.raises(WireError):
        read_datapoint(frames, DEFAULT_LIMITS)


@given(st.lists(arrays, min_size=1, max_size=3), st.data())
def test_a_damaged_body_is_refused_or_goes_the_general_way(components: list[Any], data: st.DataObject) -> None:
    frames = frames_of(components)
    damaged = bytearray(frames[0])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    frames[0] = memoryview(damaged)
    try:
        found = decode_block(frames)
    except WireError:
        found = []
    if len(found) == 1:
        general = encode_block([writable(found[0])]).frames
        assert encode_block([read_datapoint(frames, DEFAULT_LIMITS)]).frames == general
    else:  # damaged into a block of several, which arrays without elements can be
        with pytest.raises(WireError):
            read_datapoint(frames, DEFAULT_LIMITS)


@given(datapoints)
def test_what_is_lent_is_the_block_that_the_general_way_makes(datapoint: Any) -> None:
    lent = lend_datapoint(datapoint)
    builder = BlockBuilder(lend=True)
    builder.add(datapoint)
    general = builder.close().frames
    if lent is not None:
        bodies = [msgpack.packb(msgpack.unpackb(body)) for body in (lent[0], general[0])]  # lengths in their short form
        assert bodies[0] == bodies[1]
        assert list(map(bytes, lent[1])) == list(map(bytes, general[1:]))


@pytest.mark.parametrize("kind", [list, tuple])
def test_an_image_and_its_label_are_lent_without_a_copy(kind: Callable[..., Any]) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    lent = lend_datapoint(kind([image, 7, "name"]))
    assert lent is not None
    (frame,) = lent[1]
    image[0, 0, 0] = 99
    assert frame[0] == 99


@pytest.mark.parametrize(
    "odd", [np.array(["text"]), np.zeros((2, 3)).T, np.array(7), np.zeros(0), {}, [1], "\ud800", 1 << 70]
)
def test_what_is_not_plain_is_not_lent(odd: Any) -> None:
    assert lend_datapoint([np.zeros(3), odd]) is None


@given(datapoints)
def test_a_datapoint_that_is_seen_is_the_one_that_the_general_way_gives(datapoint: Any) -> None:
    frames = [memoryview(bytearray(frame)) for frame in encode_block([datapoint]).frames]
    seen = view_datapoint(frames)
    if seen is not None:
        assert encode_block([seen]).frames == encode_block([decode_block(frames)[0]]).frames


def test_arrays_that_are_seen_lie_over_the_frames_and_may_be_written_to() -> None:
    frames = [memoryview(bytearray(frame)) for frame in encode_block([[np.zeros(5000), 1]]).frames]
    seen = view_datapoint(frames)
    assert seen is not None
    seen[0][0] = 1
    assert bytes(frames[1][:8]) == np.float64(1).tobytes()
