"""Owns the encoding of a dict datapoint as a ``tf.train.Example``, and the decoding: pure functions, no protobuf.

An Example is a map from texts to features, and a feature is a list of bytes, of float32 or of int64: no more. The
encoding is that of protocol buffers: fields of a varint key (number * 8 + wire type), then a varint or a length and
bytes. Numbers are packed when written, and read packed or not. Field numbers are those of TensorFlow's example.proto
and feature.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dfserve.dataflow.serialize.varints import decode_varints, encode_varints, read_varint, varint
from dfserve.errors import EncodeError

_Array = np.ndarray[Any, np.dtype[Any]]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_INT = (1 << 63) - 1
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of a Feature


def encode_example(datapoint: object) -> bytes:
    """Return a dict datapoint as a serialized Example, whose features are in the order of the dict.

    bytes and str (as UTF-8) become a list of bytes; bool and int a list of int64; float (rounded, as TensorFlow does),
    float16 and float32 a list of float32; and so do lists, tuples and one-dimensional arrays of these.

    Raises:
        EncodeError: no dict with texts as keys, or a component that an Example cannot hold; it names the component.
    """
    if not isinstance(datapoint, dict):
        raise EncodeError(
            f"an Example is a dict with texts as keys, not a {type(datapoint).__name__}: make one in a map, or save"
            " with record='dfserve'"
        )
    features = []
    for name, value in datapoint.items():
        if not isinstance(name, str):
            raise EncodeError(f"the key {name!r} is a {type(name).__name__}; the features of an Example have texts")
        entry = _field(1, name.encode()) + _field(2, _feature(name, value))
        features.append(_field(1, entry))
    return _field(1, b"".join(features))


def decode_example(payload: bytes) -> dict[str, Any]:
    """Return what an Example holds: for each feature a list of bytes, or a writable 1-D array of float32 or int64.

    A feature without any list, which TensorFlow writes for "missing", becomes an empty list.

    Raises:
        ValueError: the bytes are no Example; the caller knows which record of which file they are.
    """
    found: dict[str, Any] = {}
    for number, features in _fields(memoryview(payload)):
        if number != 1:
            raise ValueError(f"field {number} of an Example (is it a SequenceExample?)")
        for entry_number, entry in _fields(features):
            if entry_number != 1:
                raise ValueError(f"field {entry_number} of Features")
            name, feature = _entry(entry)
            found[name] = feature
    return found


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def _feature(name: str, value: Any) -> bytes:
    if isinstance(value, (bytes, str)):
        return _bytes_list([value])
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (bytes, str)) for item in value):
            return _bytes_list(value)
        if not value:
            raise EncodeError(f"component {name!r} is empty and so has no type: use numpy.array([], 'float32')")
        if not all(isinstance(item, (bool, int, float, np.generic)) for item in value):
            raise EncodeError(f"component {name!r} {_NO_FEATURE}; it is a list of {_kinds(value)}")
    return _numbers(name, value)


_NO_FEATURE = "is no feature of an Example, which is a list of bytes, of float32 or of int64"


def _kinds(values: Any) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values}))


def _bytes_list(values: Any) -> bytes:
    items = (value.encode() if isinstance(value, str) else value for value in values)
    return _field(_BYTES_LIST, b"".join(_field(1, bytes(item)) for item in items))


def _numbers(name: str, value: Any) -> bytes:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise EncodeError(f"component {name!r} {_NO_FEATURE}: {error}") from error
    if array.ndim > 1:
        raise EncodeError(
            f"component {name!r} has the shape {array.shape}, and an Example has flat lists: ravel it and save its"
            " shape as another component, save its tobytes(), or use record='dfserve'"
        )
    flat = array.reshape(-1)
    if flat.dtype.kind in "biu":
        return _int64_list(name, flat)
    if flat.dtype.kind == "f":
        return _float_list(name, flat, exact=isinstance(value, (np.ndarray, np.generic)))
    raise EncodeError(f"component {name!r} {_NO_FEATURE}; it is a {type(value).__name__} of dtype {array.dtype}")


def _int64_list(name: str, flat: _Array) -> bytes:
    if flat.dtype == np.uint64 and flat.size and int(flat.max()) > _MAX_INT:
        raise EncodeError(f"component {name!r} holds {flat.max()}, and the integers of an Example are int64")
    return _field(_INT64_LIST, _field(1, encode_varints(flat.astype(np.int64))))


def _float_list(name: str, flat: _Array, exact: bool) -> bytes:
    if exact and flat.dtype.itemsize > 4:
        raise EncodeError(
            f"component {name!r} is {flat.dtype}, and the floats of an Example are float32: astype('float32') it in a"
            " map, or use record='dfserve'"
        )
    with np.errstate(over="ignore"):
        narrow = flat.astype("<f4")
    if (np.isinf(narrow) & np.isfinite(flat)).any():
        raise EncodeError(f"component {name!r} holds {np.abs(flat).max()}, and the floats of an Example are float32")
    return _field(_FLOAT_LIST, _field(1, narrow.tobytes()))


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a message all of whose fields have a length."""
    for number, kind, content in _any_fields(view):
        if kind != _BYTES:
            raise ValueError(f"field {number} is of wire type {kind}")
        yield number, content


def _any_fields(view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield number, wire type and content of each field; the content of a varint is its own bytes."""
    place = 0
    while place < len(view):
        key, start = read_varint(view, place)
        kind = key & 7
        if kind == _BYTES:
            length, start = read_varint(view, start)
            place = start + length
        elif kind == _VARINT:
            place = read_varint(view, start)[1]
        elif kind in (_FIXED32, _FIXED64):
            place = start + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(view) or not key >> 3:
            raise ValueError(f"field {key >> 3} ends {place - len(view)} bytes after its message")
        yield key >> 3, kind, view[start:place]


def _entry(entry: memoryview) -> tuple[str, Any]:
    name, feature = "", memoryview(b"")
    for number, content in _fields(entry):
        if number == 1:
            name = str(content, "utf-8")
        elif number == 2:
            feature = content
        else:
            raise ValueError(f"field {number} of an entry of Features")
    return name, _decode_feature(feature)


def _decode_feature(feature: memoryview) -> Any:
    found: Any = []
    for number, content in _fields(feature):
        if number not in _LISTS:
            raise ValueError(f"field {number} of a Feature")
        found = _LISTS[number](content)
    return found


def _decode_bytes(view: memoryview) -> list[bytes]:
    return [bytes(content) for _, content in _fields(view)]


def _decode_floats(view: memoryview) -> _Array:
    packed = b"".join(bytes(content) for _, content in _number_fields(view, _FIXED32))
    return np.frombuffer(packed, "<f4").astype(np.float32)


def _decode_ints(view: memoryview) -> _Array:
    return decode_varints(b"".join(bytes(content) for _, content in _number_fields(view, _VARINT)))


def _number_fields(view: memoryview, single: int) -> Iterator[tuple[int, memoryview]]:
    for number, kind, content in _any_fields(view):
        if number != 1 or kind not in (_BYTES, single):
            raise ValueError(f"field {number} of wire type {kind} in a list of numbers")
        yield number, content


_LISTS = {_BYTES_LIST: _decode_bytes, _FLOAT_LIST: _decode_floats, _INT64_LIST: _decode_ints}
