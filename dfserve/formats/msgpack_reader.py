"""Owns the reading of a plain msgpack frame from a peer that is not trusted: limits, then dtypes, then arrays."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from dfserve.errors import WireError
from dfserve.formats import dtypes
from dfserve.wire.dtypes import MAX_DIMS
from dfserve.wire.unpatched import unpackb

Datapoint: TypeAlias = list[Any] | dict[Any, Any]

MAX_ARRAY_BYTES = 1_000_000_000  # tensorpack's reader has this limit
MAX_ITEMS = 1 << 20  # values and containers of a datapoint; each costs up to 64 bytes of memory for one in the frame
MAX_DEPTH = 32  # containers within containers; Python's own recursion ends at 1000 frames
MAX_COMPLEX_CHARACTERS = 100  # repr of a complex number has at most 50
PICKLE = b"\x80"  # the opcode that opens every pickle since protocol 2, followed by the protocol's number


def loads(frame: bytes | memoryview) -> Datapoint:
    """Decode one frame into a list or dict. Arrays are read-only, C-contiguous and own nothing but the frame's bytes.

    Raises:
        WireError: and nothing else, whatever the bytes; its reason is ``pickle``, ``body``, ``limits``, ``dtype``,
            ``shape`` or ``datapoint``.
    """
    if bytes(frame[:1]) == PICKLE and 2 <= bytes(frame[1:2] or b"\0")[0] <= 5:
        raise WireError(
            "pickle", "the peer sends pickles, which dfserve never opens; run it with TENSORPACK_SERIALIZE=msgpack"
        )
    reader = _Reader()
    try:
        value = unpackb(
            frame,
            raw=False,
            object_hook=reader.map,
            list_hook=reader.sequence,
            max_bin_len=MAX_ARRAY_BYTES,
            max_str_len=MAX_ARRAY_BYTES,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except WireError:
        raise
    except Exception as error:  # noqa: BLE001  # msgpack raises its own and several built-in errors on bad bytes
        raise WireError("body", f"not msgpack: {type(error).__name__} {error}"[:200]) from None
    if not isinstance(value, (list, dict)):
        raise WireError("datapoint", f"the frame holds a {type(value).__name__}, not a list or dict of components")
    _check_depth(value)
    return value


class _Reader:
    """The hooks of one frame: they count what was made so far, and turn msgpack-numpy's maps into arrays."""

    def __init__(self) -> None:
        self._items = 0

    def sequence(self, entries: list[Any]) -> list[Any]:
        self._count(len(entries))
        return entries

    def map(self, entries: dict[Any, Any]) -> Any:
        self._count(len(entries))
        if b"nd" in entries:
            return _array(entries) if entries[b"nd"] is True else _number(entries)
        if b"complex" in entries:
            return _complex(entries)
        return entries

    def _count(self, entries: int) -> None:
        self._items += 1 + entries
        if self._items > MAX_ITEMS:
            raise WireError("limits", f"more than {MAX_ITEMS} values in one datapoint")


def _array(entries: dict[Any, Any]) -> np.ndarray[Any, Any]:
    if entries.get(b"kind", b"") not in (b"", b"V"):
        raise WireError("dtype", f"an array of kind {entries[b'kind']!r:.20} is refused: only plain data travels")
    dtype = dtypes.read(entries.get(b"type"))
    shape, data = entries.get(b"shape"), entries.get(b"data")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise WireError("shape", "the shape of an array is not a list of sizes")
    if len(shape) > MAX_DIMS:  # before they are multiplied: the product of many large numbers takes minutes
        raise WireError("shape", f"an array of {len(shape)} dimensions exceeds {MAX_DIMS}")
    if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError("shape", f"an array of shape {shape!r:.80} and dtype {dtype} came with other bytes than it has")
    try:
        array: np.ndarray[Any, Any] = np.ndarray(tuple(shape), dtype, data)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError("shape", f"numpy refuses an array: {error}") from None
    return array


def _number(entries: dict[Any, Any]) -> Any:
    dtype, data = dtypes.read(entries.get(b"type")), entries.get(b"data")
    if dtype.kind not in "biufcm" or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise WireError("shape", f"a number of dtype {dtype} came with other bytes than it has")
    return np.frombuffer(data, dtype)[0]


def _complex(entries: dict[Any, Any]) -> complex:
    text = entries.get(b"data")
    if not isinstance(text, str) or len(text) > MAX_COMPLEX_CHARACTERS:
        raise WireError("body", "a complex number is not a short text")
    try:
        return complex(text)
    except ValueError:
        raise WireError("body", f"{text!r} is not a complex number") from None


def _check_depth(value: Datapoint) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        containers = [one for one in level if isinstance(one, (list, dict))]
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return
    if any(isinstance(one, (list, dict)) for one in level):
        raise WireError("limits", f"a datapoint nested deeper than {MAX_DEPTH} levels")
