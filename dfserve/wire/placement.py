"""Owns the two short frames that speak of shared memory: where a block lies in it, and which places are free again.

Blocks lie in pools, which are named by their nonces. Each frame has a place of its own; those that are small have none,
and follow in frames of the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfserve.errors import WireError
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.messages import MAX_INT
from dfserve.wire.unpatched import Packer, unpackb

MAX_FREED = 32768  # places in one frame: the next one tells of more
# Bytes of a frame from which on it is worth a place of its own in a pool: below, a socket is as good.
SMALLEST = 32 << 10
POOL_BYTES = 16  # of a pool's nonce

Span = tuple[int, int]  # address and bytes


@dataclass(frozen=True)
class Place:
    """Where a block lies in a pool.

    Attributes:
        pool: its nonce.
        spans: of each frame; None for the next one that follows in the message.
    """

    pool: bytes
    spans: list[Span | None]


def pack_place(place: Place) -> bytes:
    """Return a frame that says where in a pool a block's frames lie."""
    flat = [number for span in place.spans for number in span or (0, 0)]
    return bytes(Packer().pack([place.pool, *flat]))


def unpack_place(frame: bytes) -> Place:
    """Return what `pack_place` was given.

    Raises:
        WireError: reason ``body``.
    """
    found = list(_numbers(frame, 2 * DEFAULT_LIMITS.max_frames + 1).items())
    if len(found) != 1:
        raise WireError("body", f"a block lies in {len(found)} pools")
    ((pool, numbers),) = found
    if not numbers or len(numbers) % 2:
        raise WireError("body", "a frame in shared memory without a length")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return Place(pool, [pair if pair[0] else None for pair in pairs])


def pack_freed(freed: Mapping[bytes, Sequence[int]]) -> bytes:
    """Return a frame that says which places are free again: addresses, by the nonces of their pools."""
    flat: list[int | bytes] = []
    for pool, addresses in freed.items():
        if addresses:
            flat += [pool, *addresses]
    return bytes(Packer().pack(flat))


def unpack_freed(frame: bytes) -> dict[bytes, list[int]]:
    """Return what `pack_freed` was given.

    Raises:
        WireError: reason ``body``.
    """
    return _numbers(frame, 2 * MAX_FREED)  # each may be of another pool


def _numbers(frame: bytes, most: int) -> dict[bytes, list[int]]:
    """Return numbers by the nonce that stands before them."""
    try:
        found = unpackb(frame, max_array_len=most, max_ext_len=0)
    except Exception as error:  # noqa: BLE001  # msgpack raises its own and several built-in errors on bad bytes
        raise WireError("body", f"a frame on shared memory is not msgpack: {type(error).__name__}") from None
    if not isinstance(found, list):
        raise WireError("body", "a frame on shared memory is no list")
    numbers: dict[bytes, list[int]] = {}
    some: list[int] | None = None
    for each in found:
        if type(each) is bytes and len(each) == POOL_BYTES:
            some = numbers.setdefault(each, [])
        elif type(each) is int and 0 <= each < MAX_INT:
            if some is None:
                raise WireError("body", "a frame on shared memory does not begin with a nonce")
            some.append(each)
        else:
            raise WireError("body", "a frame on shared memory holds something other than numbers and nonces")
    return numbers
