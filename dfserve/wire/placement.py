"""Owns the two short frames that speak of shared memory: where a block lies in it, and which slots are free again."""

from __future__ import annotations

from collections.abc import Sequence

from dfserve.errors import WireError
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.messages import MAX_INT
from dfserve.wire.unpatched import Packer, unpackb

MAX_FREED = 65536  # slots in one frame: more than any arena has


def pack_place(address: int, lengths: Sequence[int]) -> bytes:
    """Return a frame that says where a block's frames lie: from ``address`` on, each at the next multiple of 64."""
    return bytes(Packer().pack([address, *lengths]))


def unpack_place(frame: bytes) -> tuple[int, list[int]]:
    """Return what `pack_place` was given.

    Raises:
        WireError: reason ``body``.
    """
    numbers = _numbers(frame, DEFAULT_LIMITS.max_frames + 1)
    if len(numbers) < 2:
        raise WireError("body", "a block in shared memory without a place")
    return numbers[0], numbers[1:]


def pack_freed(addresses: Sequence[int]) -> bytes:
    """Return a frame that says which slots are free again."""
    return bytes(Packer().pack(list(addresses)))


def unpack_freed(frame: bytes) -> list[int]:
    """Return what `pack_freed` was given.

    Raises:
        WireError: reason ``body``.
    """
    return _numbers(frame, MAX_FREED)


def _numbers(frame: bytes, most: int) -> list[int]:
    try:
        found = unpackb(frame, max_array_len=most, max_ext_len=0)
    except Exception as error:  # noqa: BLE001  # msgpack raises its own and several built-in errors on bad bytes
        raise WireError("body", f"a frame on shared memory is not msgpack: {type(error).__name__}") from None
    if not isinstance(found, list) or not all(type(each) is int and 0 <= each < MAX_INT for each in found):
        raise WireError("body", "a frame on shared memory is no list of numbers")
    return found
