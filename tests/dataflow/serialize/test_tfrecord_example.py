"""tf.train.Example by hand: what is written, what is read, and what neither side can hold."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize.tfrecord_example import decode_example, encode_example
from dfserve.errors import EncodeError

FLOATS = st.floats(width=32, allow_nan=False)
FEATURES = st.one_of(
    st.lists(st.binary(), min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda values: np.array(values, np.int64)),
    st.lists(FLOATS).map(lambda values: np.array(values, np.float32)),
)


def plain(example: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, list) else (value.dtype, value.tolist()) for name, value in example.items()
    }


@given(st.dictionaries(st.text(), FEATURES))
def test_lists_of_bytes_and_arrays_of_float32_and_int64_come_back(example: dict[str, Any]) -> None:
    found = decode_example(encode_example(example))
    assert list(found) == list(example)
    assert plain(found) == plain(example)


@pytest.mark.parametrize(
    ("value", "feature"),
    [
        (b"jpeg", [b"jpeg"]),
        ("café", [b"caf\xc3\xa9"]),
        (["a", b"b"], [b"a", b"b"]),
        (3, [3]),
        (True, [1]),
        (-(2**63), [-(2**63)]),
        (np.uint64(2**63 - 1), [2**63 - 1]),
        ((1, 2, np.int8(-3)), [1, 2, -3]),
        (0.5, [0.5]),
        (0.1, [float(np.float32(0.1))]),
        ([1, 2.5], [1.0, 2.5]),
        (np.float16(1.5), [1.5]),
        (np.array(4), [4]),
        (np.array([1, 0], "bool"), [1, 0]),
        (np.array([], "float32"), []),
        (np.arange(3, dtype=">i2"), [0, 1, 2]),
        (float("inf"), [float("inf")]),
    ],
    ids=repr,
)
def test_what_becomes_of_a_component(value: Any, feature: list[Any]) -> None:
    found = decode_example(encode_example({"x": value}))["x"]
    assert list(found) == feature


def test_what_is_read_can_be_changed() -> None:
    found = decode_example(encode_example({"ints": [1, 2], "floats": [1.0]}))
    found["ints"] += 1
    found["floats"] += 1
    assert (found["ints"].tolist(), found["floats"].tolist()) == ([2, 3], [2.0])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros((2, 2)), "flat lists"),
        (np.zeros(2), "float64"),
        (np.float64(0.1), "float64"),
        (1e300, "float32"),
        (2**63, "int64"),
        (2**80, "no feature"),
        (np.uint64(2**63), "int64"),
        (None, "no feature"),
        ([], "has no type"),
        ([b"a", 1], "bytes, int"),
        ([[1, 2], [3]], "a list of list"),
        ({"a": 1}, "dict"),
        (np.array(["a"]), "<U1"),
        (1j, "complex"),
        (np.array([{}], object), "object"),
    ],
    ids=repr,
)
def test_what_an_example_cannot_hold_is_refused_with_the_component(value: Any, reason: str) -> None:
    with pytest.raises(EncodeError, match="component 'box'") as caught:
        encode_example({"label": 1, "box": value})
    assert reason in str(caught.value)


@pytest.mark.parametrize("datapoint", [[b"image", 3], (1,), {1: 2}])
def test_a_datapoint_that_is_no_dict_of_texts_is_refused(datapoint: Any) -> None:
    with pytest.raises(EncodeError, match="texts"):
        encode_example(datapoint)


def field(number: int, kind: int, content: bytes) -> bytes:
    length = bytes([len(content)]) if kind == 2 else b""
    return bytes([number << 3 | kind]) + length + content


def example_of(feature: bytes) -> bytes:
    return field(1, 2, field(1, 2, field(1, 2, b"x") + field(2, 2, feature)))


def test_numbers_that_are_not_packed_are_read_too() -> None:
    ints = field(3, 2, field(1, 0, b"\x05") + field(1, 2, b"\x96\x01\x07") + field(1, 0, b"\x01"))
    assert decode_example(example_of(ints))["x"].tolist() == [5, 150, 7, 1]
    floats = field(2, 2, field(1, 5, struct.pack("<f", 0.5)) + field(1, 2, struct.pack("<2f", 1, 2)))
    assert decode_example(example_of(floats))["x"].tolist() == [0.5, 1, 2]


def test_features_in_several_pieces_are_read_together() -> None:
    entries = [encode_example({"a": 1}), encode_example({"b": b"2"})]
    assert plain(decode_example(b"".join(entries))) == {"a": (np.dtype("int64"), [1]), "b": [b"2"]}


@pytest.mark.parametrize(
    "payload",
    [
        field(2, 2, b""),  # field 2: a SequenceExample
        field(1, 2, field(2, 2, b"")),  # a second field of Features
        field(1, 2, field(1, 2, field(3, 2, b""))),  # a third one of an entry
        field(1, 2, b"\x0a\x7f"),  # a length beyond the end
        example_of(field(4, 2, b"")),  # a list of a fourth kind
        example_of(field(2, 2, field(1, 0, b"\x01"))),  # varints among floats
        example_of(field(2, 2, field(1, 2, b"abc"))),  # floats of three bytes
        example_of(field(3, 2, field(1, 2, b"\xff"))),  # a varint without end
        field(1, 2, field(1, 2, field(1, 2, b"\xff") + field(2, 2, b""))),  # a name that is no UTF-8
        b"\x0b",
        b"\x02\x00",
    ],
)
def test_bytes_that_are_no_example_are_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_example(payload)


@given(st.binary() | st.binary().map(lambda rest: encode_example({"a": [1, 2], "b": "c"})[:-3] + rest))
def test_any_bytes_are_an_example_or_a_value_error(payload: bytes) -> None:
    try:
        decode_example(payload)
    except ValueError:
        return
