"""Owns the codecs that frames may be compressed with: their names, their packages, and one frame in each direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfserve.errors import ConfigError, WireError
from dfserve.wire.pieces import PIECE

# zstd's level. Measured: level 3 saves 5 % more of photographs, none of tokens, and takes two to three times as long.
LEVEL = 1


@dataclass(frozen=True)
class Codec:
    """One codec. It belongs to one thread: zstd's contexts are used again for each frame.

    Attributes:
        name: as users and the wire call it.
        compress: returns a frame's compressed form.
        expand: returns the bytes of a compressed frame, of which its sender says how many they are. It never allocates
            more than that, and raises or returns another number of bytes where the sender was wrong.
    """

    name: str
    compress: Callable[[Any], bytes]
    expand: Callable[[Any, int], bytes]

    def decompress(self, data: Any, nbytes: int) -> bytes:
        """Return the ``nbytes`` bytes of a compressed frame.

        Raises:
            WireError: reason ``body``: it is none, or one of another size.
        """
        try:
            found = self.expand(data, nbytes)
        except Exception as error:  # noqa: BLE001  # each package has errors of its own, none of which is public in both
            raise WireError("body", f"a frame that is no {self.name}: {type(error).__name__}: {error}"[:200]) from None
        if len(found) != nbytes:
            raise WireError("body", f"a frame was to have {nbytes} bytes, and {self.name} gives {len(found)}")
        return found


def _lz4() -> Codec:
    import lz4.block

    def compress(data: Any) -> bytes:
        return bytes(lz4.block.compress(data, store_size=False))

    def expand(data: Any, nbytes: int) -> bytes:
        return bytes(lz4.block.decompress(data, uncompressed_size=nbytes))  # into so many bytes, or an error

    return Codec("lz4", compress, expand)


def _zstd() -> Codec:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=LEVEL)  # writes the size of the content, which `expand` looks at
    decompressor = zstandard.ZstdDecompressor(max_window_size=PIECE)

    def expand(data: Any, nbytes: int) -> bytes:
        if (claimed := zstandard.frame_content_size(data)) != nbytes:  # what `decompress` would allocate
            raise ValueError(f"its head says {claimed} bytes, its sender {nbytes}")
        return decompressor.decompress(data, allow_extra_data=False)

    return Codec("zstd", compressor.compress, expand)


_MAKERS = {"lz4": ("lz4", _lz4), "zstd": ("zstandard", _zstd)}  # the package, and what makes the codec
NAMES = tuple(_MAKERS)


def codec_of(name: str) -> Codec:
    """Return a codec by its name.

    Raises:
        ConfigError: there is none of this name, or its package is missing; says what to install.
    """
    if name not in _MAKERS:
        raise ConfigError(f"compression is {name!r}; it is one of {', '.join(NAMES)}, or None")
    package, make = _MAKERS[name]
    try:
        return make()
    except ImportError as error:
        raise ConfigError(
            f"compression with {name} needs the package {package}: pip install 'dfserve[{name}]' ({error})"
        ) from None


def installed() -> dict[str, Codec]:
    """Return the codecs by name whose packages are here."""
    made = {name: _made(make) for name, (_, make) in _MAKERS.items()}
    return {name: codec for name, codec in made.items() if codec is not None}


def _made(make: Callable[[], Codec]) -> Codec | None:
    try:
        return make()
    except ImportError:
        return None
