"""Plain msgpack: what goes in comes out, byte for byte as msgpack-numpy has it, and nothing hostile gets through."""

from __future__ import annotations

import pickle
import subprocess
import sys

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfserve.errors import EncodeError, WireError
from dfserve.formats import dumps_of, loads_of
from dfserve.formats.msgpack_reader import MAX_DEPTH, MAX_ITEMS
from dfserve.formats.plain_msgpack import dumps, loads


def untitled(dtype):
    """Whether no field has a title beside its name, which msgpack-numpy's description loses."""
    dtype = dtype.base
    return all(len(field) == 2 and untitled(field[0]) for field in (dtype.fields or {}).values())


DTYPES = st.one_of(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize),
    hnp.byte_string_dtypes(max_len=5),
    hnp.unicode_string_dtypes(max_len=5),
    hnp.array_dtypes(max_size=3).filter(untitled),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.from_type(np.float32) | st.builds(np.int16, st.integers(-9, 9)) | st.builds(np.bool_, st.booleans()),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    ARRAYS | SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)
DATAPOINTS = st.lists(VALUES, max_size=4) | st.dictionaries(KEYS, VALUES, max_size=4)


def same(one, other):
    """Equality by value, dtype and type, with NaN equal to NaN."""
    if isinstance(one, np.ndarray):
        return (
            type(other) is np.ndarray
            and one.dtype == other.dtype
            and one.shape == other.shape
            and (one.tobytes() == other.tobytes())
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@given(DATAPOINTS)
def test_a_datapoint_comes_back_equal(datapoint):
    assert same(datapoint, loads(dumps(datapoint)))


@given(DATAPOINTS)
def test_the_bytes_are_those_of_msgpack_numpy(datapoint):
    try:
        theirs = msgpack_numpy.packb(datapoint, use_bin_type=True)
    except ValueError:  # dates and odd names of fields, which it cannot write but can read
        assert same(datapoint, msgpack_numpy.unpackb(dumps(datapoint), raw=False))
        return
    assert dumps(datapoint) == theirs


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 3), np.float32),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array([1.5], np.float16),
        np.array([1 + 2j], np.complex64),
        np.array(["2020-01-01", "NaT"], "M8[ms]"),
        np.array([5], "m8[25s]"),
        np.array([(1, 2.5)], [("a", "<i4"), ("b", ">f8")]),
        np.zeros(2, [("a", "<f4", (2, 3)), ("when", "<M8[D]"), ("inner", [("x", "u1"), ("y", "U3")])]),
        np.array(["ab", "ü"]),
        np.array([b"ab"]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_of_any_plain_kind_comes_back_equal(array):
    [back] = loads(dumps([array]))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_received_arrays_are_read_only():
    [back] = loads(dumps([np.arange(3)]))
    assert not back.flags.writeable


def test_a_tuple_comes_back_as_a_list_as_with_tensorpack():
    assert loads(dumps((1, (2, 3)))) == [1, [2, 3]]


def test_a_memoryview_can_be_read():
    assert loads(memoryview(dumps([1, "a"]))) == [1, "a"]


def recursive() -> list:
    datapoint: list = []
    datapoint.append(datapoint)
    return datapoint


@pytest.mark.parametrize(
    ("datapoint", "said"),
    [
        ([1, np.array([{}], dtype=object)], r"component \[1\]: dtype object"),
        ([np.zeros(1, [("a", "O")])], "cannot travel"),
        ({"x": [0, {1, 2}]}, r"component \['x'\]\[1\]: a set"),
        ([1 << 64], "64 bits"),
        ([-(1 << 63) - 1], "64 bits"),
        ([{1: 2}], "key 1"),
        ([{b"nd": True}], "key b'nd'"),
        ([np.zeros(1, np.dtype([("a", "u1"), ("b", "f8")], align=True))], "cannot travel"),
        ([np.zeros(1, "V4")], "cannot travel"),
        ([np.zeros(1, [(("title", "name"), "u1")])], "cannot travel"),
        ([np.zeros(1, [("empty", "U0")])["empty"]], "cannot travel"),
        ([np.ma.masked_array([1, 2], [True, False])], "masked"),
        ([np.datetime64("2020-01-01")], "datetime64"),
        (["\ud800"], "msgpack"),
        (recursive(), "nested deeper"),
        ([[0] * MAX_ITEMS], "put them into an ndarray"),
        (np.zeros(3), "not ndarray"),
        ("text", "not str"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_travel_is_refused_at_the_sender_by_name(datapoint, said):
    with pytest.raises(EncodeError, match=said):
        dumps(datapoint)


def test_the_largest_nesting_that_is_sent_is_also_read():
    datapoint: list = [1]
    for _ in range(MAX_DEPTH - 1):
        datapoint = [datapoint]
    assert loads(dumps(datapoint)) == datapoint
    with pytest.raises(EncodeError):
        dumps([datapoint])
    with pytest.raises(WireError) as caught:
        loads(msgpack.packb([datapoint]))
    assert caught.value.reason == "limits"


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def packed_array(**changes) -> bytes:
    fields = {"nd": True, "type": "<i4", "kind": b"", "shape": [2], "data": bytes(8)}
    fields.update(changes)
    return msgpack.packb([{name.encode(): value for name, value in fields.items() if value is not None}])


def test_a_pickle_in_an_array_of_objects_is_never_opened(tmp_path):
    path = tmp_path / "opened"
    trap = np.array([Trap(str(path))], dtype=object)
    frame = msgpack_numpy.packb([trap], use_bin_type=True)
    with pytest.raises(WireError) as caught:
        loads(frame)
    assert caught.value.reason == "dtype"
    assert not path.exists()
    msgpack_numpy.unpackb(frame, raw=False)[0][0].close()
    assert path.exists(), "the trap does not work, so this test shows nothing"


PATCHED = """
import pathlib, pickle, sys
import msgpack_numpy
msgpack_numpy.patch()
import msgpack
from dfserve.errors import WireError
from dfserve.formats.plain_msgpack import dumps, loads
try:
    loads(bytes.fromhex(sys.argv[1]))
except WireError as error:
    print(error.reason)
"""


def test_a_patched_msgpack_opens_no_pickle_either(tmp_path):
    path = tmp_path / "opened"
    frame = msgpack_numpy.packb([np.array([Trap(str(path))], dtype=object)], use_bin_type=True)
    done = subprocess.run([sys.executable, "-c", PATCHED, frame.hex()], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "dtype", done.stderr
    assert not path.exists()


def test_a_bare_pickle_is_refused_with_the_remedy():
    with pytest.raises(WireError, match="TENSORPACK_SERIALIZE=msgpack") as caught:
        loads(pickle.dumps([1], protocol=-1))
    assert caught.value.reason == "pickle"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "body"),
        (b"\xc1", "body"),
        (b"\x91", "body"),
        (b"\x91\x01\x01", "body"),
        (b"\x91" * 600, "body"),
        (b"\xdd\xff\xff\xff\xff", "body"),
        (b"\xc6\xff\xff\xff\xff", "body"),
        (b"\x91\xd4\x01\x01", "body"),
        (b"\x91\xa1\xff", "body"),
        (b"\x91\x81\x90\x01", "body"),
        (msgpack.packb(1), "datapoint"),
        (packed_array()[1:], "datapoint"),
        (msgpack.packb([[[0] * (1 << 19)], [0] * (1 << 19)]), "limits"),
        (b"\xdd\x00\x08\x00\x00" + b"\x80" * (1 << 19), "limits"),
        (packed_array(kind=b"O", data=pickle.dumps(1)), "dtype"),
        (packed_array(kind="O"), "dtype"),
        (packed_array(type="|O"), "dtype"),
        (packed_array(type="O"), "dtype"),
        (packed_array(type="i4,O"), "dtype"),
        (packed_array(type="(2,)i4"), "dtype"),
        (packed_array(type="<i3"), "dtype"),
        (packed_array(type=None), "dtype"),
        (packed_array(type=[["a", "|O"]]), "dtype"),
        (packed_array(type=[["a", [["b", "|O"]]]]), "dtype"),
        (packed_array(type=[["a", "<i4"], ["a", "<i4"]]), "dtype"),
        (packed_array(type=[["a", "<i4", [1 << 40, 1 << 40]]]), "dtype"),
        (packed_array(type=[["a", "<i4", [-1]]]), "dtype"),
        (packed_array(type=[]), "dtype"),
        (packed_array(type="<U0", data=b"", shape=[1 << 40]), "dtype"),
        (packed_array(shape=None), "shape"),
        (packed_array(shape=[-2]), "shape"),
        (packed_array(shape=[-2, -1]), "shape"),
        (packed_array(shape=[2.0]), "shape"),
        (packed_array(shape=[True, 2]), "shape"),
        (packed_array(shape=[1 << 40]), "shape"),
        (packed_array(shape=[0, 1 << 62, 1 << 62], data=b""), "shape"),
        (packed_array(shape=[1] * 100 + [2]), "shape"),
        (packed_array(data="text"), "shape"),
        (packed_array(data=None), "shape"),
        (packed_array(data=bytes(7)), "shape"),
        (packed_array(nd=False), "shape"),
        (packed_array(nd=1), "shape"),
        (msgpack.packb([{b"complex": True, b"data": "1+"}]), "body"),
        (msgpack.packb([{b"complex": True, b"data": b"1"}]), "body"),
        (msgpack.packb([{b"complex": True}]), "body"),
    ],
)
def test_a_bad_frame_is_refused_with_its_reason(frame, reason):
    with pytest.raises(WireError) as caught:
        loads(frame)
    assert caught.value.reason == reason


def test_the_sizes_of_an_array_are_counted_before_they_are_multiplied():
    with pytest.raises(WireError, match="80000 dimensions exceeds 31"):  # their product takes a minute
        loads(packed_array(shape=[(1 << 64) - 1] * 80_000))


@given(st.binary(max_size=200))
def test_random_bytes_give_a_datapoint_or_a_wire_error(frame):
    read_or_refused(frame)


@given(DATAPOINTS, st.data())
def test_a_damaged_frame_gives_a_datapoint_or_a_wire_error(datapoint, data):
    frame = bytearray(dumps(datapoint))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    read_or_refused(bytes(frame))


VALUES_ON_THE_WIRE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.text(max_size=4) | st.binary(max_size=16) | st.floats(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
DTYPE_TEXTS = st.sampled_from(["<i4", "|u1", "<U2", "|O", "<M8[s]", "<V3", "=f8"]) | st.text(max_size=6)
MAPS = st.fixed_dictionaries(
    {},
    optional={
        b"nd": st.booleans() | VALUES_ON_THE_WIRE,
        b"type": DTYPE_TEXTS | st.lists(st.tuples(st.text(max_size=2), DTYPE_TEXTS), max_size=3) | VALUES_ON_THE_WIRE,
        b"kind": st.sampled_from([b"", b"V", b"O"]) | VALUES_ON_THE_WIRE,
        b"shape": st.lists(st.integers(-1, 4), max_size=4) | VALUES_ON_THE_WIRE,
        b"data": st.binary(max_size=64) | VALUES_ON_THE_WIRE,
        b"complex": VALUES_ON_THE_WIRE,
    },
)


@given(st.lists(MAPS, max_size=3))
def test_a_map_of_wrong_fields_gives_a_datapoint_or_a_wire_error(maps):
    read_or_refused(msgpack.packb(maps))


def read_or_refused(frame: bytes) -> None:
    try:
        value = loads(frame)
    except WireError as error:
        reason = error.reason
    else:
        assert isinstance(value, (list, dict))
        return
    assert reason in {"body", "limits", "dtype", "shape", "datapoint", "pickle"}


def test_formats_are_found_by_name_and_others_refused():
    assert loads_of("msgpack")(dumps_of("msgpack")([1])) == [1]
    for find in (dumps_of, loads_of):
        with pytest.raises(ValueError, match="no format 'pickle'"):
            find("pickle")
