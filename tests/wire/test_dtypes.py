"""Owns the tests of how dtypes and shapes are written and read."""

from __future__ import annotations

import numpy as np
import pytest

from dfserve.errors import EncodeError, WireError
from dfserve.wire.dtypes import MAX_DIMS, MAX_FIELDS, dtype_spec, read_dtype, read_shape

PLAIN = [
    "?", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "<f2", ">f2", "<f4", ">f8", "<c8", ">c16", "S3", "<U5", ">U5", "V8",
    "<M8[ns]", ">M8[D]", "<M8[7D]", "<m8[us]", "<M8", "<m8",
]  # fmt: skip
STRUCTURED = {
    "packed": np.dtype([("a", "<i4"), ("b", "|u1"), ("c", "<f8")]),
    "aligned": np.dtype([("a", "|u1"), ("b", "<f8")], align=True),
    "nested": np.dtype([("in", [("x", "<f4"), ("y", ">f4")]), ("n", "<i8")]),
    "with subarrays": np.dtype([("box", "<f4", (2, 3)), ("name", "<U4")]),
    "with offsets out of order": np.dtype(
        {"names": ["b", "a"], "formats": ["<i2", "<i4"], "offsets": [10, 2], "itemsize": 20}
    ),
    "with overlap": np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 0], "itemsize": 4}),
    "with titles": np.dtype([(("The title", "a"), "<i4"), ("b", "<M8[s]")]),
    "with names outside ASCII": np.dtype([("größe", "<f4")]),
}


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_dtype_is_read_back_equal(text):
    dtype = np.dtype(text)
    assert read_dtype(dtype_spec(dtype)) == dtype
    assert read_dtype(dtype_spec(dtype)).str == dtype.str


@pytest.mark.parametrize("case", STRUCTURED)
def test_a_structured_dtype_is_read_back_equal(case):
    dtype = STRUCTURED[case]
    found = read_dtype(dtype_spec(dtype))
    assert found == dtype
    assert found.itemsize == dtype.itemsize
    assert found.fields == dtype.fields


@pytest.mark.parametrize("dtype", ["O", [("a", "O")], [("a", [("b", "<i4"), ("c", "O")])], [("a", "O", (2,))]])
def test_dtype_object_is_refused_at_the_sender_wherever_it_hides(dtype):
    with pytest.raises(EncodeError, match="pickles"):
        dtype_spec(np.dtype(dtype))


@pytest.mark.parametrize("text", ["g", "G"])
def test_extended_floats_are_refused_because_machines_differ(text):
    with pytest.raises(EncodeError, match=r"differs between machines.*astype"):
        dtype_spec(np.dtype(text))


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([]),
        np.dtype([("a", "S0")]),
        np.dtype([(f"f{i}", "u1") for i in range(MAX_FIELDS + 1)]),
        np.dtype([(((1, 2), "a"), "<i4")]),
    ],
)
def test_a_dtype_that_could_not_be_rebuilt_is_refused_at_the_sender(dtype):
    with pytest.raises(EncodeError, match="rebuilt"):
        dtype_spec(dtype)


def test_dtypes_nested_deeper_than_the_limit_are_refused_at_the_sender():
    dtype = np.dtype("<i4")
    for _ in range(9):
        dtype = np.dtype([("in", dtype)])
    with pytest.raises(EncodeError, match="rebuilt"):
        dtype_spec(dtype)


@pytest.mark.parametrize(
    "spec",
    [
        "object", "O", "|O", "|O8", "<O8", "O8", "i4,f4", "i4, O", "(2,)i4", "(2,)O", "float64", "f8", "=f8", "<f16",
        "<c32", "<f3", "<i16", "|b2", "S", "|S0", "|S-1", "|S9999999999", "<U", "<U0", "<U999999999", "V", "|V0", "T",
        "<M8[x]", "<M8[0s]", "<M8[s]\n", "<M8[99999999999s]", "<M8[s/3]", "datetime64[ns]", "<i4\0", "<i٤", " <i4",
        "", "numpy.object_", "a", "P", "p", None, 4, 4.0, True, b"<i4", {}, {"names": ["a"], "formats": ["O"]},
        [], ["<i4"], ["<i4", [3]], [["a", "<i4"]], [4, [["a", "<i4"]]],
        [8, [["a", None, 0, "|O", []]]],
        [8, [["a", None, 0, [8, [["b", None, 0, "O", []]]], []]]],
        [4, [["a", None, 1, "<i4", []]]],
        [4, [["a", None, -1, "|u1", []]]],
        [4, [["a", None, 0, "|u1", [5]]]],
        [4, [["a", None, 0, "|u1", [-1]]]],
        [4, [["a", None, 0, "|u1", [0]]]],
        [4, [["a", None, 0, "|u1", [2**62, 2**62]]]],
        [4, [["a", None, 0, "|u1", []], ["a", None, 1, "|u1", []]]],
        [4, [["a", "b", 0, "|u1", []], ["b", None, 1, "|u1", []]]],
        [4, [["a", 7, 0, "|u1", []]]],
        [4, [["", None, 0, "|u1", []]]],
        [4, [[b"a", None, 0, "|u1", []]]],
        [4, [["a", None, 0.0, "|u1", []]]],
        [4, [["a", None, True, "|u1", []]]],
        [0, [["a", None, 0, "|u1", []]]],
        [2**31, [["a", None, 0, "|u1", []]]],
        [2**80, [["a", None, 0, "|u1", []]]],
        ["4", [["a", None, 0, "|u1", []]]],
        [4, []],
        [1000, [[f"f{i}", None, i, "|u1", []] for i in range(MAX_FIELDS + 1)]],
    ],
)  # fmt: skip
def test_whatever_is_outside_the_grammar_is_refused_by_the_receiver(spec):
    with pytest.raises(WireError) as caught:
        read_dtype(spec)
    assert caught.value.reason in ("dtype", "shape", "limits")


def test_a_dtype_nested_without_end_is_refused_by_the_receiver():
    spec = "<i4"
    for _ in range(5000):
        spec = [4, [["a", None, 0, spec, []]]]
    with pytest.raises(WireError):
        read_dtype(spec)


def test_a_shape_tells_its_elements_without_overflow():
    assert read_shape([], 8) == ((), 1)
    assert read_shape([0, 5], 8) == ((0, 5), 0)
    assert read_shape([1 << 10, 1 << 10, 3], 1) == ((1024, 1024, 3), 3 << 20)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ([-1], "shape"),
        ([1.0], "shape"),
        ([True], "shape"),
        ([None], "shape"),
        ("ab", "shape"),
        (7, "shape"),
        ((1,), "shape"),
        ([1] * (MAX_DIMS + 1), "shape"),
        ([1 << 32, 1 << 32], "limits"),
        ([1 << 64], "limits"),
        ([0, 1 << 62], "limits"),
        ([1 << 62, 0], "limits"),
    ],
)
def test_a_bad_shape_is_refused(shape, reason):
    with pytest.raises(WireError) as caught:
        read_shape(shape, 4)
    assert caught.value.reason == reason
