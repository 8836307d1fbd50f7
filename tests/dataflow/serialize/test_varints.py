"""Varints: one by one and in arrays, back and forth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize.varints import decode_varints, encode_varints, read_varint, varint

INT64 = st.integers(-(2**63), 2**63 - 1)


def test_the_examples_of_the_protobuf_documentation() -> None:
    assert varint(1) == b"\x01"
    assert varint(150) == b"\x96\x01"
    assert encode_varints(np.array([-2])) == b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_one_number_comes_back_and_what_follows_it_is_left(value: int, rest: bytes) -> None:
    encoded = varint(value)
    assert read_varint(memoryview(b"x" + encoded + rest), 1) == (value, 1 + len(encoded))


@given(st.lists(INT64))
def test_an_array_is_its_numbers_one_by_one_and_comes_back(values: list[int]) -> None:
    encoded = encode_varints(np.array(values, np.int64))
    assert encoded == b"".join(varint(value % 2**64) for value in values)
    assert decode_varints(encoded).tolist() == values


@given(st.binary(max_size=40))
def test_any_bytes_are_numbers_or_a_value_error(encoded: bytes) -> None:
    view = memoryview(encoded)
    try:
        decoded = decode_varints(encoded).tolist()
    except ValueError:
        return
    assert len(decoded) == sum(byte < 0x80 for byte in view)


@pytest.mark.parametrize("encoded", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
def test_a_number_that_does_not_end_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="varint"):
        decode_varints(encoded)


@pytest.mark.parametrize("encoded", [b"", b"\x80\x80", b"\xff" * 9 + b"\x02", b"\x80" * 11])
def test_one_number_that_does_not_end_within_64_bits_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="does not end, or has more than 64 bits"):
        read_varint(memoryview(encoded), 0)
