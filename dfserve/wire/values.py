"""Owns how a Python value is written into a msgpack body: exact types, with arrays and numpy scalars inside.

Exact types only: subclasses (IntEnum, namedtuple, OrderedDict, masked arrays) would come back as their base, so they
are refused with the remedy instead. Types that msgpack lacks travel as extension types of ours, so that nothing a user
sends can be mistaken for one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from dfserve.errors import EncodeError
from dfserve.wire.arrays import Supply, array_bytes, is_array
from dfserve.wire.dtypes import MAX_DIMS, dtype_spec, scalar_stackable
from dfserve.wire.limits import Limits
from dfserve.wire.refusals import refusal
from dfserve.wire.unpatched import Packer

# Extension types. NUMPY holds msgpack-numpy's own encoding; ARRAY and SCALAR what that lacks or gets wrong (dates,
# structured dtypes with padding) and arrays in frames of their own. DICT is for keys other than str and bytes.
BIG_INT, COMPLEX, TUPLE, SET, FROZENSET, DICT, NUMPY, ARRAY, SCALAR, NUMPY_STR, NUMPY_BYTES = range(1, 12)

INLINE_BYTES = 4096  # an array of fewer bytes goes into the body: a frame costs about a microsecond at each hop
_TEXTS = frozenset({str, bytes})
SAFE_INT = 1 << 64
PLAIN_TYPES = frozenset({int, float, bool, type(None), str, bytes})  # msgpack carries these exactly
COMPLEX_STRUCT = struct.Struct("<dd")
# Entries of one dict or set whose hashes a peer could make collide (65536 such integers of 80 bits cost 36 s).
MAX_CRAFTED = 256
_HASH_SAFE = (str, bytes, float, type(None), np.bool_, np.integer, np.floating)
_CODES: dict[type, int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}


class ValueWriter:
    """Writes the values of one block at a time.

    Attributes:
        limits: what the receiver admits.
        supply: where the memory of the block's large frames comes from, if not from `blank`.
        frames: uint8 copies of the large arrays met so far; frame ``i`` of these is frame ``1 + i`` of the block.
        fast: packs a value of ``PLAIN_TYPES``; raises ValueError for some (``pack`` tells which and takes the rest).
        describe: packs descriptions of our own; one packer serves all because each holds a megabyte.
    """

    def __init__(self, limits: Limits, supply: Supply | None = None) -> None:
        self.limits = limits
        self.supply = supply
        self.frames: list[np.ndarray[Any, Any]] = []
        # strict_types: msgpack would take a subclass for its base. The default hook is left with int beyond 64 bits.
        self.fast: Callable[[object], bytes] = Packer(strict_types=True, default=_big_int).pack
        self.describe: Callable[[object], bytes] = Packer().pack
        self._lenient: Callable[[object], bytes] = Packer(
            strict_types=True, default=_big_int, unicode_errors="surrogatepass"
        ).pack

    def pack(self, value: object) -> bytes:
        """Return the value as msgpack, copying everything it holds; large arrays are appended to ``frames``.

        Raises:
            EncodeError: the value, or one inside it, cannot travel.
        """
        if type(value) not in PLAIN_TYPES:
            value = self._walk(value, 0)
        return self._packed(value)

    def _packed(self, value: object) -> bytes:
        try:
            return self.fast(value)
        except UnicodeEncodeError:  # lone surrogates: a file name that is not UTF-8 has them
            return self._lenient(value)
        except ValueError as error:
            raise EncodeError(f"cannot be packed: {error}; send it as a uint8 array") from None

    def _walk(self, value: Any, depth: int) -> Any:
        """Return the value with all that msgpack lacks replaced by our extension types."""
        kind = type(value)
        if kind in PLAIN_TYPES:
            return value
        if kind in (list, dict, tuple, set, frozenset):
            return self._container(value, depth)
        if kind is complex:
            return msgpack.ExtType(COMPLEX, COMPLEX_STRUCT.pack(value.real, value.imag))
        if is_array(value):
            return self._array(value)
        if isinstance(value, np.generic):
            return self._scalar(value)
        raise EncodeError(refusal(value))

    def _container(self, value: Any, depth: int) -> Any:
        limits = self.limits
        if depth >= limits.max_depth:
            raise EncodeError(f"nests more than {limits.max_depth} containers (or holds itself): flatten it")
        if len(value) > limits.max_count:
            raise EncodeError(
                f"holds a {type(value).__name__} of {len(value)} entries; {limits.max_count} travel: send an array"
            )
        if type(value) is dict:
            return self._dict(value, depth)
        items = self._items(value, depth)
        if type(value) is list:
            return items
        if type(value) is not tuple:
            check_keys(value)
        return msgpack.ExtType(_CODES[type(value)], self._packed(items))

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        items = list(values)
        if PLAIN_TYPES.issuperset(map(type, items)):
            return items
        return [self._walk(item, depth + 1) for item in items]

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        items = self._items(value.values(), depth)
        if _TEXTS.issuperset(map(type, value)):
            return dict(zip(value, items))  # noqa: B905  # of one dict
        check_keys(value)
        return msgpack.ExtType(DICT, self._packed([self._items(value, depth), items]))

    def _array(self, value: np.ndarray[Any, Any]) -> msgpack.ExtType:
        spec = dtype_spec(value.dtype)
        check_array(value, self.limits)
        if value.nbytes >= INLINE_BYTES:
            self.frames.append(array_bytes(value, self.supply))
            return msgpack.ExtType(ARRAY, self.describe([spec, value.shape, len(self.frames)]))
        if value.dtype.kind in "VmM":
            return msgpack.ExtType(ARRAY, self.describe([spec, value.shape, array_bytes(value).tobytes()]))
        return msgpack.ExtType(NUMPY, self.describe(msgpack_numpy.encode(value)))

    def _scalar(self, value: Any) -> msgpack.ExtType:
        if type(value) is np.str_:
            return msgpack.ExtType(NUMPY_STR, str.encode(value, "utf-8", "surrogatepass"))  # str(value) would cut NULs
        if type(value) is np.bytes_:
            return msgpack.ExtType(NUMPY_BYTES, bytes(value))
        spec = dtype_spec(value.dtype)
        if not scalar_stackable(value.dtype):
            raise EncodeError(refusal(value))
        if value.dtype.kind in "VmM":
            return msgpack.ExtType(SCALAR, self.describe([spec, array_bytes(np.asarray(value)).tobytes()]))
        return msgpack.ExtType(NUMPY, self.describe(msgpack_numpy.encode(value)))


def crafted(keys: Iterable[Any]) -> int:
    """Return how many keys have hashes that a peer could make collide, as those of big ints and of tuples."""
    return sum(
        not isinstance(key, _HASH_SAFE) and not (isinstance(key, int) and -SAFE_INT < key < SAFE_INT) for key in keys
    )


def check_keys(keys: Iterable[Any]) -> None:
    """Raise EncodeError if the keys of a dict or the members of a set are more of the kind than a receiver admits."""
    count = crafted(keys)
    if count > MAX_CRAFTED:
        raise EncodeError(
            f"has {count} keys that are tuples, complex or beyond 64 bits; {MAX_CRAFTED} travel: use str or int keys"
        )


def check_array(value: np.ndarray[Any, Any], limits: Limits) -> None:
    """Raise EncodeError if an array has more bytes or dimensions than travel."""
    span = value.dtype.itemsize
    for dimension in value.shape:
        span *= dimension or 1
    if span > limits.max_frame:
        raise EncodeError(
            f"is an array of shape {value.shape} and dtype {value.dtype}, {span} bytes; "
            f"a frame carries {limits.max_frame} (Limits.max_frame): split it"
        )
    if value.ndim > MAX_DIMS:
        raise EncodeError(f"is an array of {value.ndim} dimensions; {MAX_DIMS} travel: reshape it")


def _big_int(value: Any) -> msgpack.ExtType:
    if type(value) is not int:  # cannot be: everything else was replaced before
        raise EncodeError(refusal(value))
    return msgpack.ExtType(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
