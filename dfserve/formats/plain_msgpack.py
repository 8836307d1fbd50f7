"""Owns ``format="msgpack"``: a datapoint as one frame of plain msgpack, arrays as msgpack-numpy encodes them.

Byte for byte what tensorpack 0.11 sends and reads when it runs with ``TENSORPACK_SERIALIZE=msgpack``. msgpack-numpy's
own decoder, which unpickles arrays of dtype object, is not used: nothing is ever unpickled, and that dtype is refused
on both sides. The reading of a frame is in :mod:`dfserve.formats.msgpack_reader`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.errors import EncodeError
from dfserve.formats.dtypes import travels
from dfserve.formats.msgpack_reader import MAX_ARRAY_BYTES, MAX_DEPTH, MAX_ITEMS, Datapoint, loads
from dfserve.wire.unpatched import Packer

__all__ = ["Datapoint", "dumps", "loads"]

MARKERS = (b"nd", b"complex")  # keys by which msgpack-numpy knows its own maps
MIN_INT, MAX_INT = -(1 << 63), (1 << 64) - 1  # what msgpack's integers hold


def dumps(datapoint: Datapoint | tuple[Any, ...]) -> bytes:
    """Encode a datapoint: a list, tuple or dict (keys str or bytes) of arrays, scalars, str, bytes, None and nestings.

    As with tensorpack, what msgpack does not tell apart comes back as the simpler type: a tuple as a list, a bytearray
    as bytes, a numpy float64 scalar as a float. Arrays of every dtype without Python objects come back equal.

    Raises:
        EncodeError: a value that cannot travel; the message names the component.
    """
    if not isinstance(datapoint, (list, tuple, dict)):
        raise EncodeError(f"a datapoint is a list, tuple or dict of components, not {type(datapoint).__name__}")
    plain = _Sender().plain(datapoint, "", 0)
    try:
        return bytes(Packer(use_bin_type=True).pack(plain))
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"the datapoint cannot be written as msgpack: {error}") from None


class _Sender:
    """Turns one datapoint into what msgpack can write, within the limits that the reader has too."""

    def __init__(self) -> None:
        self._items = 0

    def plain(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if not isinstance(value, (list, tuple, dict)):
            return self._scalar(value, where)
        self._count(len(value), where, depth)
        if isinstance(value, dict):
            keys = [self._key(key, where) for key in value]
            return {key: self.plain(value[key], f"{where}[{key!r}]", depth + 1) for key in keys}
        return [self.plain(entry, f"{where}[{i}]", depth + 1) for i, entry in enumerate(value)]

    def _count(self, entries: int, where: str, depth: int) -> None:
        self._items += 1 + entries
        if depth >= MAX_DEPTH:
            raise EncodeError(f"component {where[:80]}… is nested deeper than {MAX_DEPTH} levels")
        if self._items > MAX_ITEMS:
            raise EncodeError(
                f"component {where}: more than {MAX_ITEMS} values in a datapoint; put them into an ndarray"
            )

    def _key(self, key: Any, where: str) -> Any:
        if not isinstance(key, (str, bytes)) or key in MARKERS:
            raise EncodeError(f"component {where or 'datapoint'}: key {key!r} cannot travel; use a str")
        return key

    def _array(self, array: np.ndarray[Any, Any], where: str) -> dict[bytes, Any]:
        if isinstance(array, np.ma.MaskedArray):
            raise EncodeError(
                f"component {where}: a masked array would lose its mask; send data and mask as two arrays"
            )
        if not travels(array.dtype):
            raise EncodeError(
                f"component {where}: dtype {array.dtype} cannot travel as plain msgpack; convert it first"
            )
        if array.nbytes > MAX_ARRAY_BYTES:
            raise EncodeError(f"component {where}: {array.nbytes} bytes exceed the {MAX_ARRAY_BYTES} of this format")
        structured = array.dtype.kind == "V"
        self._items += 6  # the map and its five entries
        return {
            b"nd": True,
            b"type": array.dtype.descr if structured else array.dtype.str,
            b"kind": b"V" if structured else b"",
            b"shape": array.shape,
            b"data": _buffer(array),
        }

    def _scalar(self, value: Any, where: str) -> Any:
        if isinstance(value, int) and not MIN_INT <= value <= MAX_INT:
            raise EncodeError(f"component {where}: the integer {value:.3e} does not fit into 64 bits")
        if value is None or isinstance(value, (int, float, str, bytes, bytearray)):
            return value
        self._items += 4  # a map and its three entries
        if isinstance(value, (np.bool_, np.number)):
            return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
        if isinstance(value, complex):
            return {b"complex": True, b"data": repr(value)}
        raise EncodeError(f"component {where}: a {type(value).__name__} cannot travel; convert it to an ndarray")


def _buffer(array: np.ndarray[Any, Any]) -> Any:
    """The array's bytes in C order, without a copy where they are contiguous already."""
    if not array.flags.c_contiguous:
        return array.tobytes()
    try:
        return array.data
    except ValueError:  # numpy exports no buffer of datetimes
        return array.tobytes()
