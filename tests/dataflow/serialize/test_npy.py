"""Looking into .npy bytes: what comes out, and that no header is believed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize.npy import view_npy


def npy(array: Any, **keywords: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **keywords)
    return file.getvalue()


def with_header(text: str, content: bytes = b"") -> bytes:
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype="<f4").reshape(2, 3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(7, "u1"),
        np.array("text"),
        np.zeros((0, 5)),
        np.zeros(2, [("a", "i4"), ("b", "f8", (2,))]),
    ],
    ids=str,
)
def test_an_array_comes_back_as_a_view_of_the_bytes(array: Any) -> None:
    found = view_npy(memoryview(npy(array)))
    assert np.array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert not found.flags.writeable or not found.size


def test_objects_are_refused_without_looking_at_their_pickle() -> None:
    with pytest.raises(ValueError, match="nothing here unpickles"):
        view_npy(memoryview(npy(np.array([{}], object), allow_pickle=True)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [("(1000000000000,)", "<f8"), ("(4294967296, 4294967296, 4294967296)", "|u1"), ("(-1,)", "|u1"), ("(2,)", "|S0")],
)
def test_a_header_that_claims_more_than_there_is_allocates_nothing(shape: str, dtype: str) -> None:
    data = with_header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}", bytes(16))
    with pytest.raises(ValueError, match="an array of"):
        view_npy(memoryview(data))


@given(st.binary(max_size=80) | st.binary(max_size=200).map(lambda rest: b"\x93NUMPY\x01\x00v\x00" + rest))
def test_any_other_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        view_npy(memoryview(data))


@given(st.data())
def test_a_damaged_file_gives_an_array_or_a_value_error(data: st.DataObject) -> None:
    whole = bytearray(npy(np.arange(10)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        found = view_npy(memoryview(whole))
    except ValueError:
        return
    assert found.nbytes <= len(whole)
