"""Owns the compressed form of a block on the wire: which of its frames are compressed, and how large they really are.

Frames are compressed one by one, after they were cut into pieces: so none is larger than a piece when it is
decompressed either, and no peer can make the other side take more memory at once. A frame in front says the codec and,
for each of the others, the bytes that it has when it is decompressed, 0 for one that is as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from dfserve.errors import WireError
from dfserve.wire.codecs import Codec
from dfserve.wire.limits import DEFAULT_LIMITS
from dfserve.wire.pieces import PIECE, Extent
from dfserve.wire.unpatched import Packer, unpackb

SMALLEST = 1024  # bytes of a frame that is compressed: one packet of a network takes no longer for being half as large
# The share of a frame that compressing it must save: for less, the broker's time to decompress it is not well spent.
LEAST_SAVED = 1 / 16
NAME_BYTES, SIZE_BYTES = 32, 9  # of the frame that says how, in msgpack, at most
BESIDE = 3  # frames of a message beside those of its block: header, body, and the one that says how


def compress(frames: Sequence[Any], codec: Codec) -> list[Any] | None:
    """Return the frames of a block that was cut into pieces as they are to be sent; None: as they are.

    Frames that are small, or that hardly shrink, stay as they are; None where all of them do.
    """
    if len(frames) + BESIDE > DEFAULT_LIMITS.max_frames:
        return None
    found: list[Any] = []
    sizes = []
    for frame in frames:
        shrunk = _shrunk(frame, codec)
        found.append(frame if shrunk is None else shrunk)
        sizes.append(0 if shrunk is None else len(frame))
    return [bytes(Packer().pack([codec.name, *sizes])), *found] if any(sizes) else None


def _shrunk(frame: Any, codec: Codec) -> bytes | None:
    if len(frame) < SMALLEST:
        return None
    shrunk = codec.compress(frame)
    return shrunk if len(shrunk) <= len(frame) * (1 - LEAST_SAVED) else None


class Compressed(Sequence[Extent]):
    """A block's frames as they came. As a sequence it has their lengths once they are decompressed, and no more.

    Attributes:
        on_wire: bytes that they took.
    """

    def __init__(self, frames: Sequence[Any], codecs: Mapping[str, Codec]) -> None:
        """Take in what follows a message's body, without decompressing.

        Args:
            frames: the one that says how, and those of the block.
            codecs: by name, those that are installed.

        Raises:
            WireError: reason ``frames``, ``limits`` or ``body``: these are no such frames.
        """
        self._frames = frames[1:]
        name, self._sizes = _how(frames)
        if name not in codecs:
            raise WireError("body", f"a block was compressed with {name[:20]!r}, which was not announced")
        self._codec = codecs[name]
        self._lengths = [Extent(size or len(frame)) for size, frame in zip(self._sizes, self._frames, strict=True)]
        self.on_wire = sum(len(frame) for frame in frames)

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> Extent: ...
    @overload
    def __getitem__(self, index: slice) -> list[Extent]: ...
    def __getitem__(self, index: int | slice) -> Extent | list[Extent]:
        return self._lengths[index]

    def decompressed(self) -> list[Any]:
        """Return the frames; to be called when there is room for them.

        Raises:
            WireError: reason ``body``: one cannot be decompressed, or has another size than was said.
        """
        return [
            self._codec.decompress(memoryview(frame), size) if size else frame
            for size, frame in zip(self._sizes, self._frames, strict=True)
        ]


def _how(frames: Sequence[Any]) -> tuple[str, list[int]]:
    """Return the name of the codec and the sizes, which were checked."""
    if len(frames) < 2:
        raise WireError("frames", "a compressed block without frames")
    if len(frames[0]) > NAME_BYTES + SIZE_BYTES * len(frames):
        raise WireError("limits", f"a frame on compression of {len(frames[0])} bytes")
    try:
        found = unpackb(bytes(frames[0]), max_array_len=len(frames), max_ext_len=0)
    except Exception as error:  # noqa: BLE001  # msgpack raises its own and several built-in errors on bad bytes
        raise WireError("body", f"a frame on compression is not msgpack: {type(error).__name__}") from None
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise WireError("body", "a frame on compression names no codec")
    name, *sizes = found
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise WireError("body", "a frame on compression has sizes that are none")
    if len(sizes) != len(frames) - 1:
        raise WireError("frames", f"{len(frames) - 1} compressed frames came with {len(sizes)} sizes")
    if max(sizes) > PIECE:
        raise WireError("limits", f"a frame would have {max(sizes)} bytes; a piece has {PIECE}")
    return name, sizes
