"""Records: a datapoint as bytes and back."""

from __future__ import annotations

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfserve.dataflow.serialize.records import MAGIC, decode_record, encode_record, encoded
from dfserve.errors import EncodeError, WireError
from dfserve.wire.blocks import encode_block

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(), st.binary()
)
DATAPOINTS = st.one_of(
    st.lists(VALUES), st.lists(VALUES).map(tuple), st.dictionaries(st.text(), st.lists(VALUES, max_size=3))
)


@given(DATAPOINTS)
def test_a_datapoint_comes_back_equal_and_of_the_same_types(datapoint: Any) -> None:
    found = decode_record(encode_record(datapoint))
    assert (found, repr(found)) == (datapoint, repr(datapoint))


def test_arrays_come_back_writable_and_with_memory_of_their_own() -> None:
    record = bytearray(encode_record([np.arange(6.0).reshape(2, 3), np.int16(4), [np.zeros(20000, "u1")]]))
    matrix, scalar, (nested,) = decode_record(record)
    record[:] = bytes(len(record))
    assert matrix.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (type(scalar), scalar) == (np.int16, 4)
    matrix += 1
    nested += 1


@pytest.mark.parametrize("value", [np.array([{}], object), object(), lambda: None])
def test_what_only_a_pickle_could_hold_is_refused_with_datapoint_and_component(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"datapoint 1 cannot be saved: component 1 \('image'\)"):
        list(encoded([{"key": "a", "image": 1}, {"key": "b", "image": value}], encode_record))


@given(st.data())
def test_damaged_bytes_are_a_datapoint_or_a_wire_error(data: st.DataObject) -> None:
    whole = bytearray(encode_record([np.arange(5), "text", 3]))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        decode_record(bytes(whole))
    except WireError:
        return


@given(st.binary() | st.binary().map(lambda rest: MAGIC + rest))
def test_foreign_bytes_are_a_wire_error(record: bytes) -> None:
    with pytest.raises(WireError):
        decode_record(record)


def test_every_cut_record_is_a_wire_error() -> None:
    whole = encode_record([np.arange(5), "text"])
    for length in range(len(whole)):
        with pytest.raises(WireError):
            decode_record(whole[:length])


def test_a_block_of_two_datapoints_is_no_record() -> None:
    (body,) = encode_block([[1], [2]]).frames
    with pytest.raises(WireError, match="2 datapoints"):
        decode_record(struct.pack("<4sIQ", MAGIC, 1, len(body)) + body)


def test_a_pickle_is_not_loaded() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("a pickle was loaded",)

    with pytest.raises(WireError):
        decode_record(pickle.dumps(Trap()))


def test_a_refused_datapoint_leaves_nothing_in_the_next_record() -> None:
    before = encode_record([np.arange(5), "text"])
    with pytest.raises(EncodeError):
        encode_record([np.arange(9), {"deep": [np.arange(3), object()]}])
    assert encode_record([np.arange(5), "text"]) == before


def test_threads_encode_at_once() -> None:
    datapoints = [[np.full(number * 7, number % 251, "u1"), number, str(number)] for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(encode_record, datapoints))
    assert records == [encode_record(datapoint) for datapoint in datapoints]
