"""Owns the tests of values in the body: exact types come back, and what cannot travel is refused with a remedy."""

from __future__ import annotations

import collections
import datetime
import enum
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfserve.errors import EncodeError
from dfserve.wire.blocks import BlockBuilder, decode_block, encode_block
from dfserve.wire.limits import Limits
from dfserve.wire.unpatched import unpackb
from dfserve.wire.values import INLINE_BYTES


class Colour(enum.IntEnum):
    RED = 1


class Mode(str, enum.Enum):
    FAST = "fast"


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


VALUES = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**400, -(10**400), 1 << 127,
    0.0, -0.0, 1.5, float("inf"), float("nan"), 5e-324, 1j, complex(-0.0, float("nan")),
    "", "a", "größe \U0001f600", "\ud800 lone", "a\0b", "x" * 70000, b"", b"\xff\x00", b"x" * 70000,
    (), (1,), ((), ((),)), [], [[]], [1, [2, (3, [4])]], [True, 1, 1.0], [2**70, (2**70,)], {}, {"a": {"b": (1,)}},
    {1: "int", "1": "str", b"1": "bytes", None: 0, 2.5: 0, (1, "a"): 0, 2**70: 0, 1j: 0, frozenset({1}): 0},
    {True: 1}, {1.0: 1}, {b"nd": True, b"kind": b"O", b"data": b"x"}, {b"complex": True, b"data": "1j"},
    {"b": 1, "a": 2}, set(), {1, "a", (1, 2)}, frozenset({2.5}), [{"deep": [({"er": {1}},)]}],
    np.str_("text"), np.str_("nul\0"), np.bytes_(b"nul\0"), [np.str_("in"), np.bytes_(b"in")],
    {np.int64(3): "numpy key", np.str_("k"): 1, np.datetime64("2020-01-01"): 2},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_of_the_same_type(value, travelled, same):
    assert same(travelled([value]), [[value]])
    assert same(travelled([[value]]), [[[value]]])
    assert same(travelled([{"nested": (value,)}], [{"nested": (value,)}]), [[{"nested": (value,)}]] * 2)


SCALARS = [
    np.bool_(True), np.int8(-3), np.uint64(2**64 - 1), np.float16(1.5), np.float32(3), np.float64("nan"),
    np.complex64(1 + 2j), np.complex128(-0.0), np.datetime64("2024-02-29T12:00", "ns"), np.datetime64("NaT", "s"),
    np.timedelta64(5, "D"), np.timedelta64(5, "ns"), np.void(b"abc"),
    np.array((1, 2.5), dtype=[("a", "<i4"), ("b", ">f8")])[()],
]  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: f"{scalar.dtype}")
def test_a_numpy_scalar_comes_back_as_one_bare_and_nested(scalar, travelled, same):
    assert same(travelled([scalar, 1], [scalar, 2]), [[scalar, 1], [scalar, 2]])
    assert same(travelled([{"in": [scalar, (scalar,)]}]), [[{"in": [scalar, (scalar,)]}]])


NESTED_DTYPES = [
    "?", "u1", ">i2", "<f2", "<f4", "<c16", "S3", "<U5", ">U5", "V3", "<M8[ns]", ">m8[s]", [("a", "<i4"), ("b", ">f8")]
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 5), (60, 70)])
@pytest.mark.parametrize("dtype", NESTED_DTYPES, ids=str)
def test_an_array_within_a_value_comes_back_equal_in_the_body_or_in_a_frame(dtype, shape, travelled, same):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    array = np.frombuffer((b"\0\1\0\0" * (size // 4 + 1))[:size] or b"", np.uint8).view(dtype) if size else []
    array = np.array(array, dtype).reshape(shape)
    found = travelled([{"a": [array, array.T]}])
    assert same(found, [[{"a": [array, array.T]}]])
    assert not found[0][0]["a"][0].flags.writeable


def test_a_small_nested_array_goes_into_the_body_and_a_large_one_into_a_frame():
    small, large = np.zeros(INLINE_BYTES - 1, "u1"), np.zeros(INLINE_BYTES, "u1")
    assert len(encode_block([[(small,)]]).frames) == 1
    assert len(encode_block([[(large,)]]).frames) == 2


def test_a_small_nested_array_is_in_the_encoding_of_msgpack_numpy():
    body = unpackb(encode_block([[(np.arange(3, dtype="<i2"),)]]).frames[0])
    inner = unpackb(body[3][0][1][0].data)
    found = unpackb(inner[0].data)
    assert found == {b"nd": True, b"type": "<i2", b"kind": b"", b"shape": [3], b"data": struct.pack("<3h", 0, 1, 2)}


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Colour.RED, r"send int\(value\)"),
        (Mode.FAST, r"send str\(value\)"),
        (Point(1, 2), r"send tuple\(value\)"),
        (collections.OrderedDict(a=1), r"send dict\(value\)"),
        (collections.defaultdict(int), r"send dict\(value\)"),
        (collections.Counter("ab"), r"send dict\(value\)"),
        (bytearray(b"x"), r"send bytes\(value\)"),
        (memoryview(b"x"), r"send bytes\(value\)"),
        (np.ma.masked_array([1], [0]), r"value\.filled"),
        (np.ma.masked, r"value\.filled"),
        (np.zeros(3).view(type("Tagged", (np.ndarray,), {})), r"send np\.asarray\(value\)"),
        (np.rec.array([(1,)], dtype=[("a", "<i4")]), r"send np\.asarray\(value\)"),
        (np.array([object()]), "pickles"),
        (np.zeros(2, [("a", "O")]), "pickles"),
        (np.zeros(2, "g"), "astype"),
        (np.longdouble(1), "astype"),
        (np.zeros((1,) * 32), "reshape"),
        (object(), "send arrays"),
        (len, "send arrays"),
        (range(3), "send arrays"),
        (datetime.datetime(2020, 1, 1), "send arrays"),
        (msgpack.ExtType(3, b""), r"tuple\(value\)"),
        (msgpack.Timestamp(1), "send arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # no addresses
)
def test_what_cannot_travel_is_refused_with_the_remedy_bare_and_nested(value, remedy):
    with pytest.raises(EncodeError, match=f"component 1 .*{remedy}"):
        encode_block([[0, value]])
    with pytest.raises(EncodeError, match=f"component 1 .*{remedy}"):
        encode_block([[0, {"in": [(value,)]}]])


def test_a_matrix_is_refused():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1]])
    with pytest.raises(EncodeError, match="asarray"):
        encode_block([[matrix]])


def test_a_memmap_travels_and_comes_back_as_an_ndarray(tmp_path, travelled, same):
    mapped = np.memmap(tmp_path / "map", dtype="<f4", mode="w+", shape=(5, 5))
    mapped[:] = 7
    expected = np.full((5, 5), 7, "<f4")
    assert same(travelled([mapped[1:], [mapped]]), [[expected[1:], [expected]]])


def test_a_list_that_holds_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="nests more than 32"):
        encode_block([[endless]])


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys])
def test_keys_whose_hashes_could_collide_travel_up_to_the_limit_and_are_refused_beyond_it(kind, travelled, same):
    good, bad = kind((n, n) for n in range(256)), kind((n, n) for n in range(257))
    assert same(travelled([good]), [[good]])
    with pytest.raises(EncodeError, match=r"257 keys .* 256 travel: use str or int keys"):
        encode_block([[bad]])
    many = kind([*range(-5000, 5000), *map(str, range(5000)), *map(np.int64, range(5000, 6000)), 0.5, None])
    assert same(travelled([many]), [[many]])


def nested(depth: int) -> object:
    value: object = 7
    for level in range(depth):
        value = [value] if level % 3 else ((value,) if level % 2 else {"k": value})
    return value


def test_nesting_travels_up_to_the_limit_and_is_refused_beyond_it(travelled, same):
    assert same(travelled([nested(32)]), [[nested(32)]])
    with pytest.raises(EncodeError, match="nests more than 32"):
        encode_block([[nested(33)]])


def test_a_list_travels_up_to_the_limit_and_is_refused_beyond_it(travelled):
    assert travelled([list(range(65536))]) == [[list(range(65536))]]
    with pytest.raises(EncodeError, match="65537 entries; 65536 travel: send an array"):
        encode_block([[list(range(65537))]])


def test_a_body_larger_than_the_limit_is_refused_at_the_sender():
    limits = Limits(max_body=10_000)
    with pytest.raises(EncodeError, match=r"body has \d+ bytes of 10000 \(Limits.max_body\)"):
        encode_block([[b"x" * 10_000]], limits)
    block = encode_block([[b"x" * 9_000]], limits)
    assert decode_block(block.frames, limits) == [[b"x" * 9_000]]


def test_what_the_pipeline_changes_after_add_is_not_changed_in_the_block():
    builder = BlockBuilder()
    boxes, array = [[1, 2]], np.zeros(3)
    large = np.zeros(INLINE_BYTES)
    builder.add([boxes, array, (large,)])
    boxes[0][0] = 99
    boxes.append([])
    array[:] = large[:] = 99
    found = decode_block(builder.close().frames)
    assert found[0][0] == [[1, 2]]
    assert not found[0][1].any()
    assert not found[0][2][0].any()


keys = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
arrays = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes()).filter(
        lambda dtype: dtype.char not in "gG"
    ),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
values = st.recursive(
    st.one_of(keys, st.floats(), st.complex_numbers(), st.integers(-(2**200), 2**200), arrays),
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(keys, inner), st.sets(keys), st.frozensets(keys)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=values, other=values)
def test_any_value_comes_back_equal(value, other, travelled, same):
    assert same(travelled([{"v": value}, other]), [[{"v": value}, other]])
