"""Owns the tests of whole blocks: the round trip of every kind of array, and what the receiver gets."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfserve.errors import EncodeError
from dfserve.wire.blocks import BlockBuilder, decode_block, encode_block, inspect_block
from dfserve.wire.limits import Limits

ARRAYS = {
    "0-d": np.array(3.5),
    "empty": np.empty((0,), "<f4"),
    "empty in the middle": np.empty((2, 0, 3), "<i2"),
    "non-contiguous": np.arange(24).reshape(4, 6)[::2, ::-3],
    "Fortran order": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "broadcast": np.broadcast_to(np.arange(3), (4, 3)),
    "read-only": np.frombuffer(b"abcd", "u1"),
    "unaligned": np.frombuffer(b"\0" + bytes(16), "<f8", offset=1),
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "float16": np.array([1.5, np.nan, -0.0], "<f2"),
    "complex64": np.array([1 + 2j], "<c8"),
    "complex128 big-endian": np.array([1 + 2j], ">c16"),
    "datetime64": np.array(["2024-02-29", "NaT"], "<M8[D]"),
    "datetime64[ns] 0-d": np.array("2024-02-29", "<M8[ns]"),
    "timedelta64 big-endian": np.array([5, -5], ">m8[ms]"),
    "structured": np.array([(1, 2.5), (3, 4.5)], [("a", "<i4"), ("b", "<f8")]),
    "structured 0-d": np.array((1, 2.5), [("a", "<i4"), ("b", ">f8")]),
    "structured nested": np.zeros((2, 2), [("in", [("x", "<f4"), ("t", "<M8[s]")]), ("box", "<i2", (2, 2))]),
    "structured with padding": np.ones(3, np.dtype([("a", "u1"), ("b", "<f8")], align=True)),
    "structured with titles": np.ones(3, [(("The title", "a"), "<i4")]),
    "unicode": np.array(["größe", "", "\U0001f600"], "<U5"),
    "unicode big-endian": np.array(["ab"], ">U3"),
    "bytes": np.array([b"abc", b"d\0"], "S3"),
    "void": np.array([b"ab", b"cd"], "V2"),
    "uint64": np.array([2**64 - 1], "<u8"),
    "31 dimensions": np.zeros((1,) * 31),
    "large": np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_equal(name, travelled, same):
    array = ARRAYS[name]
    for datapoint in ([array], (array, 1), {"a": array, "b": [array]}):
        assert same(travelled(datapoint), [datapoint])
        assert same(travelled(datapoint, datapoint, datapoint), [datapoint] * 3)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_one_dtype_and_many_shapes_come_back_equal(name, travelled, same):
    array = ARRAYS[name]
    if array.ndim == 31:
        array = array[(0,) * 28]
    flat = np.array(array).reshape(-1)
    other = flat[np.arange(2 * len(flat)) % max(len(flat), 1)]  # concatenate would lose the byte order
    datapoints = [[shape, 1] for shape in (array, array, other, array[None], other[:1], other[:0], other)]
    assert len(encode_block(datapoints).frames) == 2
    assert same(travelled(*datapoints), datapoints)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("width", [0, 1, 3])
def test_lists_stay_lists_and_tuples_tuples_of_any_width(kind, width, travelled, same):
    datapoints = [kind([n] * width) for n in range(4)]
    assert same(travelled(*datapoints), datapoints)


def test_dict_datapoints_keep_their_keys_and_the_order_of_them(travelled, same):
    datapoints = [{"b": n, 1: np.arange(n), None: "x", (1, b"k"): 2.5} for n in range(4)]
    assert same(travelled(*datapoints), datapoints)
    assert same(travelled({}, {}), [{}, {}])


def test_a_stack_is_one_frame_and_rows_are_views_of_it_without_a_copy():
    block = encode_block([[np.full((64, 64), n, "<f4"), n] for n in range(8)])
    assert [len(frame) for frame in block.frames[1:]] == [8 * 64 * 64 * 4]
    whole = np.frombuffer(block.frames[1], "<f4")
    assert all(np.shares_memory(whole, array) for array, _ in decode_block(block.frames))


def test_one_large_array_is_one_frame_and_comes_back_as_a_view():
    array = np.arange(1 << 20, dtype="<f8")
    block = encode_block([[array]])
    assert [len(frame) for frame in block.frames[1:]] == [array.nbytes]
    found = decode_block(block.frames)[0][0]
    assert np.shares_memory(found, np.frombuffer(block.frames[1], "u1"))
    assert not np.shares_memory(found, array)


def test_ragged_rows_start_at_multiples_of_64_bytes_and_the_gaps_carry_no_memory_of_ours():
    block = encode_block([[np.full(n, 255, "u1")] for n in (1, 64, 3)])
    assert bytes(block.frames[1]) == b"\xff" + bytes(63) + b"\xff" * 64 + b"\xff" * 3


def test_the_gaps_of_structured_dtypes_carry_no_memory_of_ours():
    dtype = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 1000})
    for _ in range(5):
        np.full(1 << 16, 255, "u1")  # leaves memory that an unclean buffer would pick up
        block = encode_block([[np.ones(8, dtype)], [np.ones(8, dtype)]])
        assert bytes(block.frames[1]).count(0) == 16 * 999


def test_received_arrays_are_read_only_and_cannot_be_made_writable():
    datapoints = [[np.zeros(3), [np.zeros(3), np.zeros(5000)], np.zeros(n), np.array(1)] for n in (2, 3)]
    frames = [bytearray(frame) for frame in encode_block(datapoints).frames]
    for stacked, (inline, framed), ragged, zero_d in decode_block(frames):
        for array in (stacked, inline, framed, ragged, zero_d):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


class Holder(bytearray):
    """Memory whose end can be observed."""


def test_an_array_keeps_its_frame_alive_and_the_last_one_lets_it_go():
    block = encode_block([[np.arange(1000) + n] for n in range(3)])
    memory = Holder(block.frames[1])
    gone = weakref.ref(memory)
    found = decode_block([block.frames[0], memory])
    del memory
    kept = found[1][0]
    del found
    gc.collect()
    assert gone() is not None
    assert kept[0] == 1
    del kept
    gc.collect()
    assert gone() is None


def test_frames_of_zmq_and_memoryviews_are_read_like_bytes(same):
    datapoints = [[np.arange(100), "a", np.ones(2)], [np.arange(100), "b", np.ones(2)]]
    frames = encode_block(datapoints).frames
    for wrap in (bytes, bytearray, memoryview, zmq.Frame, lambda frame: np.frombuffer(frame, "<i1")):
        assert same(decode_block([wrap(frame) for frame in frames]), datapoints)
        assert inspect_block([wrap(frame) for frame in frames]) == 2


def test_arrays_over_memory_that_is_not_aligned_are_copied_so_that_they_are(same):
    datapoints = [[np.arange(5.0)], [np.arange(5.0)]]
    body, data = encode_block(datapoints).frames
    for shift in range(8):
        shifted = memoryview(bytes(shift) + bytes(data))[shift:]
        found = decode_block([body, shifted])
        assert same(found, datapoints)
        assert all(array.flags.aligned and not array.flags.writeable for (array,) in found)


@pytest.mark.parametrize("value", [3, "text", b"bytes", None, np.zeros(3), {1, 2}, iter([])])
def test_what_is_no_list_tuple_or_dict_is_refused(value):
    with pytest.raises(EncodeError, match=r"a datapoint is a list, tuple or dict.*send \[value\]"):
        encode_block([value])


def test_encode_block_refuses_datapoints_of_different_structure_and_none_at_all():
    with pytest.raises(EncodeError, match="datapoint 1 does not fit"):
        encode_block([[1], [1, 2]])
    with pytest.raises(EncodeError, match="at least one"):
        encode_block([])


def test_an_array_beyond_the_limit_of_a_frame_is_refused_with_its_sizes():
    with pytest.raises(EncodeError, match=r"component 1 \('image'\) is an array of shape \(101,\).* 808 bytes.*800"):
        encode_block([{"a": 1, "image": np.zeros(101)}], Limits(max_frame=800))
    with pytest.raises(EncodeError, match="268435456"):
        encode_block([[np.empty((0, 1 << 40))]])


def test_more_frames_than_the_limit_are_refused_at_the_sender():
    with pytest.raises(EncodeError, match=r"11 frames of 10 \(Limits.max_frames\)"):
        encode_block([[np.zeros(3)] * 10], Limits(max_frames=10))
    with pytest.raises(EncodeError, match=r"11 frames of 10 \(Limits.max_frames\)"):
        encode_block([[[np.zeros(5000)] * 10]], Limits(max_frames=10))
    assert len(encode_block([[np.zeros(3)] * 9], Limits(max_frames=10)).frames) == 10


dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.array_dtypes(
        st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes()).filter(lambda dtype: dtype.char not in "gG"),
        min_size=1,
        allow_subarrays=True,
    ),
).filter(lambda dtype: dtype.char not in "gG")
shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=5)


@st.composite
def columns(draw, count):
    """Draw the components of one column: arrays of one shape, of many, numpy scalars, or values."""
    dtype = draw(dtypes)
    if draw(st.booleans()):
        shape = draw(shapes)
        return [draw(hnp.arrays(dtype, shape)) for _ in range(count)]
    if draw(st.booleans()):
        return [draw(hnp.arrays(dtype, shapes)) for _ in range(count)]
    if dtype.kind not in "SUV" and draw(st.booleans()):
        return [draw(hnp.arrays(dtype, ()))[()] for _ in range(count)]
    return [draw(st.one_of(st.integers(), st.text(), st.none(), st.lists(st.floats()))) for _ in range(count)]


@st.composite
def blocks(draw):
    """Draw datapoints of one structure."""
    count = draw(st.integers(1, 5))
    rows = list(zip(*draw(st.lists(columns(count), min_size=1, max_size=4)), strict=True))
    kind = draw(st.sampled_from([list, tuple, dict]))
    return [kind(zip("abcd", row, strict=False)) if kind is dict else kind(row) for row in rows]


@settings(max_examples=300, deadline=None)
@given(datapoints=blocks())
def test_any_block_comes_back_equal(datapoints, travelled, same):
    assert same(travelled(*datapoints), datapoints)


@settings(max_examples=150, deadline=None)
@given(stream=st.lists(blocks(), max_size=5), max_bytes=st.integers(1, 2000), max_count=st.integers(1, 6))
def test_any_stream_comes_back_in_order_through_blocks_of_any_size(stream, max_bytes, max_count, same):
    datapoints = [datapoint for block in stream for datapoint in block]
    builder = BlockBuilder(max_bytes, max_count)
    found = []
    for datapoint in datapoints:
        if not builder.add(datapoint):
            found += decode_block(builder.close().frames)
            assert builder.add(datapoint)
    if builder.count:
        found += decode_block(builder.close().frames)
    assert same(found, datapoints)


def test_a_blocks_frames_are_freed_with_the_last_view_without_a_garbage_collection() -> None:
    frames = [np.frombuffer(bytes(frame), np.uint8) for frame in encode_block([[np.arange(3000), {"deep": 1}]]).frames]
    body, column = (weakref.ref(frame) for frame in frames)
    gc.disable()
    try:
        rows = decode_block(frames)
        view = rows[0][0][5:]
        del frames, rows
        assert body() is None
        assert column() is not None
        del view
        assert column() is None
    finally:
        gc.enable()
