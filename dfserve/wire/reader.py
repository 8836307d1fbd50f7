"""Owns how values are read back out of a msgpack body, believing nothing that it says.

One reader serves both the consumer, who wants the arrays, and the broker, who wants to know that they could be built:
the checks are the same code, so that what the broker lets through is what a consumer can read. msgpack-numpy's decoder
would unpickle an array of dtype object; it is called only for maps whose every entry has been checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

import msgpack
import msgpack_numpy
import numpy as np

from dfserve.errors import WireError
from dfserve.wire import values as codes
from dfserve.wire.arrays import array_view, locked
from dfserve.wire.dtypes import MAX_FIELDS, read_dtype, read_shape, scalar_stackable
from dfserve.wire.limits import Limits
from dfserve.wire.pieces import Extent
from dfserve.wire.unpatched import unpackb

_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_ARRAY_KEYS = {b"nd", b"type", b"kind", b"shape", b"data"}
_SCALAR_KEYS = {b"nd", b"type", b"data"}
_NUMPY_KINDS = "biufcSU"  # what msgpack-numpy rebuilds equal


class _Unbuilt:
    """Stands for an array that was checked and not built; unhashable as an array is, so a key or set refuses both."""

    __hash__ = None  # type: ignore[assignment]  # the idiom for an unhashable class


class Reader:
    """Reads the body of one block and lends out its frames, each of them once.

    Args:
        frames: all frames of the block, as read-only memoryviews of bytes; frame 0 is the body.
        limits: bounds on what the body may claim.
        build: make arrays; without it everything is checked and no array is made.
        writable: let the arrays that lie in the body be written to.
    """

    def __init__(self, frames: list[memoryview | Extent], limits: Limits, build: bool, writable: bool = False) -> None:
        self.build = build
        self.writable = writable
        self.limits = limits
        self._frames = frames
        self._unclaimed = set(range(1, len(frames)))
        self._depth = 0
        self._hooks: dict[int, Callable[[bytes], Any]] = {
            codes.BIG_INT: lambda data: int.from_bytes(data, "little", signed=True),
            codes.COMPLEX: lambda data: complex(*codes.COMPLEX_STRUCT.unpack(data)),
            codes.TUPLE: lambda data: tuple(self._items(data)),
            codes.SET: lambda data: set(hashables(self._items(data))),
            codes.FROZENSET: lambda data: frozenset(hashables(self._items(data))),
            codes.DICT: self._dict,
            codes.NUMPY: self._numpy,
            codes.ARRAY: self._array,
            codes.SCALAR: self._scalar,
            codes.NUMPY_STR: lambda data: np.str_(data.decode("utf-8", "surrogatepass")),
            codes.NUMPY_BYTES: lambda data: np.bytes_(data),
        }

    def body(self) -> Any:
        """Return what the body holds. Raises WireError, and whatever msgpack raises on bad bytes."""
        body = self._frames[0]
        assert not isinstance(body, Extent), "a body is never an extent"
        return self._unpack(body, self._value)

    def release(self) -> None:
        """Let go of the frames. The hooks refer back to this reader, and a cycle would hold them until a collection."""
        self._hooks.clear()
        self._frames = []

    def claim(self, number: object) -> Any:
        """Return the frame of that number. Raises WireError if there is none, or if it was claimed before."""
        if type(number) is not int or number not in self._unclaimed:
            raise WireError("frames", "a frame number is out of range or was used twice")
        self._unclaimed.remove(number)
        return self._frames[number]

    def finish(self) -> None:
        """Raise WireError if there are frames that nothing refers to."""
        if self._unclaimed:
            raise WireError("frames", f"{len(self._unclaimed)} frames are not referred to by the body")

    def check_values(self, found: list[Any]) -> None:
        """Raise WireError if values nest too deep, or hold the one type that msgpack makes without asking us."""
        level: Any = found
        for _ in range(self.limits.max_depth + 1):
            kinds = set(map(type, level))
            if msgpack.Timestamp in kinds:
                raise WireError("body", "a msgpack timestamp is no value of ours")
            if kinds.isdisjoint(_CONTAINERS):
                return
            level = list(chain.from_iterable(map(_children, level)))
        raise WireError("limits", f"values nest more than {self.limits.max_depth} containers")

    def _unpack(self, data: memoryview | bytes, hook: Callable[[int, bytes], Any]) -> Any:
        most = max(self.limits.max_count, MAX_FIELDS)
        return unpackb(
            data,
            strict_map_key=True,
            unicode_errors="surrogatepass",
            ext_hook=hook,
            max_array_len=most,
            max_map_len=most,
        )

    def _value(self, code: int, data: bytes) -> Any:
        read = self._hooks.get(code)
        if read is None:
            raise WireError("body", f"unknown extension type {code}")
        return read(data)

    def _items(self, data: bytes) -> list[Any]:
        if self._depth >= self.limits.max_depth:
            raise WireError("limits", f"values nest more than {self.limits.max_depth} containers")
        self._depth += 1
        items = _require_list(self._unpack(data, self._value))
        self._depth -= 1  # no finally: an error ends the whole reading
        return items

    def _dict(self, data: bytes) -> dict[Any, Any]:
        keys, items = map(_require_list, self._items(data))
        found = dict(zip(hashables(keys), items, strict=True))
        if len(found) != len(keys):
            raise WireError("body", "a dict has two equal keys")
        return found

    def _array(self, data: bytes) -> Any:
        spec, dims, payload = _require_list(self._unpack(data, _no_extension))
        dtype = read_dtype(spec)
        shape, elements = read_shape(dims, dtype.itemsize, self.limits.max_frame)
        held = payload if type(payload) is bytes else self.claim(payload)
        _require_size(held, elements * dtype.itemsize)
        if not self.build:
            return _Unbuilt()
        if isinstance(held, memoryview):
            return array_view(locked(held), dtype, shape)
        return array_view(bytearray(held) if self.writable else held, dtype, shape)

    def _scalar(self, data: bytes) -> Any:
        spec, payload = _require_list(self._unpack(data, _no_extension))
        dtype = read_dtype(spec)
        if not scalar_stackable(dtype):
            raise WireError("dtype", "a text came as a numpy scalar of fixed length")
        _require_size(payload, dtype.itemsize)
        return array_view(payload, dtype, ())[()]

    def _numpy(self, data: bytes) -> Any:
        found = self._unpack(data, _no_extension)
        if type(found) is not dict or found.get(b"nd") not in (True, False):
            raise WireError("body", "an extension for msgpack-numpy holds something else")
        if found[b"nd"] is True:
            return self._numpy_array(found)
        if found.keys() != _SCALAR_KEYS or found[b"nd"] is not False:
            raise WireError("body", "a scalar of msgpack-numpy has other entries than its own")
        dtype = _numpy_dtype(found)
        if not scalar_stackable(dtype):
            raise WireError("dtype", "a text came as a numpy scalar of fixed length")
        _require_size(found[b"data"], dtype.itemsize)
        return msgpack_numpy.decode(found)

    def _numpy_array(self, found: dict[bytes, Any]) -> Any:
        if found.keys() != _ARRAY_KEYS or found[b"kind"] != b"":
            raise WireError("dtype", "an array of msgpack-numpy is not of a plain dtype")
        dtype = _numpy_dtype(found)
        _, elements = read_shape(found[b"shape"], dtype.itemsize, self.limits.max_frame)
        _require_size(found[b"data"], elements * dtype.itemsize)
        if not self.build:
            return _Unbuilt()
        array = msgpack_numpy.decode(found)
        return array.copy() if self.writable else array


def hashables(keys: list[Any]) -> list[Any]:
    """Return keys that may be hashed: raise WireError if so many could collide that hashing them takes long."""
    count = codes.crafted(keys)
    if count > codes.MAX_CRAFTED:
        raise WireError("limits", f"{count} keys of one dict or set could be made to collide")
    return keys


def _children(item: Any) -> Any:
    kind = type(item)
    if kind is dict:
        return chain(item, item.values())
    return item if kind in _CONTAINERS else ()


def _numpy_dtype(found: dict[bytes, Any]) -> np.dtype[Any]:
    dtype = read_dtype(found[b"type"]) if type(found[b"type"]) is str else None
    if dtype is None or dtype.kind not in _NUMPY_KINDS:
        raise WireError("dtype", "an array of msgpack-numpy is not of a plain dtype")
    return dtype


def _require_list(found: Any) -> list[Any]:
    if type(found) is not list:
        raise WireError("body", "an extension type of ours does not hold a list")
    return found


def _require_size(data: memoryview | Extent | bytes, expected: int) -> None:
    if type(data) not in (bytes, memoryview, Extent):
        raise WireError("body", "the data of an array are not bytes")
    if len(data) != expected:
        raise WireError("frames", f"an array has {len(data)} bytes where its dtype and shape say {expected}")


def _no_extension(_code: int, _data: bytes) -> NoReturn:
    raise WireError("body", "an extension type inside the description of an array")
