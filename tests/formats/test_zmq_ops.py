"""The layout of tensorpack's TensorFlow op: exact bytes, round trips, and loads that believe nothing."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfserve.errors import EncodeError, WireError
from dfserve.formats.zmq_ops import DTYPE_OF_ENUM, MAX_COUNT, dumps, loads

DTYPES = st.sampled_from(sorted(DTYPE_OF_ENUM.values(), key=str)) | st.sampled_from([np.dtype(">f4"), np.dtype(">u2")])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))


def i32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def i64(number: int) -> bytes:
    return struct.pack("<q", number)


def test_the_layout_is_that_of_the_op():
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    frame = i32(2) + i32(4, 3, 1, 2, 3) + i64(6) + bytes(range(6)) + i32(3, 0) + i64(4) + i32(7)
    assert dumps([image, 7]) == frame
    back = loads(frame)
    np.testing.assert_array_equal(back[0], image)
    assert back[1] == 7
    assert back[1].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("float32", 1),
        ("float64", 2),
        ("int32", 3),
        ("uint8", 4),
        ("int16", 5),
        ("int8", 6),
        ("complex64", 8),
        ("int64", 9),
        ("bool", 10),
        ("uint16", 17),
        ("complex128", 18),
        ("float16", 19),
        ("uint32", 22),
        ("uint64", 23),
    ],
)
def test_a_dtype_has_the_number_that_tensorflow_gives_it(name, number):
    assert dumps([np.zeros((), name)])[4:8] == i32(number)


@given(st.lists(ARRAYS, max_size=4))
def test_arrays_come_back_equal(arrays):
    back = loads(dumps(arrays))
    assert len(back) == len(arrays)
    for one, other in zip(arrays, back, strict=True):
        assert one.shape == other.shape
        assert one.dtype.newbyteorder("=") == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.zeros((2, 0, 3)),
        np.array(5),
    ],
)
def test_strides_do_not_matter(array):
    np.testing.assert_array_equal(loads(dumps([array]))[0], array)


def test_received_arrays_are_writable_and_aligned():
    for array in loads(memoryview(dumps([np.zeros(3, np.uint8), np.zeros(3, np.float64)]))):
        assert array.flags.writeable
        assert array.flags.aligned


def test_python_numbers_become_what_zmq_ops_makes_of_them():
    dtypes = [array.dtype for array in loads(dumps([1, 1.5, True, np.float64(2), np.int64(3), [1.0, 2.0]]))]
    assert dtypes == ["int32", "float32", "int32", "float32", "int64", "float64"]


def test_an_array_of_a_number_keeps_the_width_that_the_number_would_not():
    assert loads(dumps([np.asarray(np.float64(2))]))[0].dtype == "float64"


@pytest.mark.parametrize(
    ("datapoint", "said"),
    [
        ({"image": np.zeros(1)}, "not dict"),
        (np.zeros(3), "not ndarray"),
        ([0, "text"], "component 1: str"),
        ([np.array(["a"])], "component 0"),
        ([b"bytes"], "component 0: bytes"),
        ([None], "component 0: NoneType"),
        ([np.array([{}], dtype=object)], "object"),
        ([np.array(["2020-01-01"], "M8[D]")], "datetime64"),
        ([np.zeros(1, [("a", "<i4")])], "component 0"),
        ([np.ma.masked_array([1.0], [True])], "component 0"),
        ([[[1], [1, 2]]], "component 0"),
        ([1 << 31], "int32"),
        ([-(1 << 31) - 1], "int32"),
        ([np.zeros((1,) * 9)], "8 dimensions"),
        ([0] * (MAX_COUNT + 1), "components exceed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Creating an ndarray from ragged")  # numpy before 1.24 warns, and makes objects
def test_what_the_op_does_not_take_is_refused_at_the_sender(datapoint, said):
    with pytest.raises(EncodeError, match=said):
        dumps(datapoint)


ONE = i32(1)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "body"),
        (b"\1\0\0", "body"),
        (i32(-1), "limits"),
        (i32(1 << 30), "limits"),
        (ONE, "body"),
        (i32(0) + b"x", "body"),
        (ONE + i32(7, 0) + i64(1) + b"x", "dtype"),
        (ONE + i32(0, 0) + i64(0), "dtype"),
        (ONE + i32(1, -1), "limits"),
        (ONE + i32(1, 9), "limits"),
        (ONE + i32(1, 2, 3), "body"),
        (ONE + i32(1, 1, -1) + i64(-4), "shape"),
        (ONE + i32(1, 1, 2) + i64(4) + bytes(4), "shape"),
        (ONE + i32(4, 8) + i32(*[(1 << 31) - 1] * 8) + i64(-1), "shape"),
        (ONE + i32(4, 8) + i32(0, *[(1 << 31) - 1] * 7) + i64(0), "shape"),
        (ONE + i32(4, 1, (1 << 31) - 1) + i64((1 << 31) - 1) + b"x", "body"),
    ],
)
def test_a_bad_frame_is_refused_with_its_reason(frame, reason):
    with pytest.raises(WireError) as caught:
        loads(frame)
    assert caught.value.reason == reason


@given(
    st.binary(max_size=100)
    | st.lists(st.integers(-1, 9) | st.integers(-(1 << 31), (1 << 31) - 1)).map(lambda n: i32(*n))
)
def test_random_bytes_give_arrays_or_a_wire_error(frame):
    read_or_refused(frame)


@given(st.lists(ARRAYS, max_size=3), st.data())
def test_a_damaged_frame_gives_arrays_or_a_wire_error(arrays, data):
    frame = bytearray(dumps(arrays))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(frame))
    read_or_refused(bytes(frame[:at]))


def read_or_refused(frame: bytes) -> None:
    try:
        arrays = loads(frame)
    except WireError as error:
        reason = error.reason
    else:
        assert sum(array.nbytes for array in arrays) <= len(frame)
        return
    assert reason in {"body", "limits", "dtype", "shape"}
