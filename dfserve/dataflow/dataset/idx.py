"""Owns reading idx files, the format of MNIST: a header with the shape in big-endian, then the bytes of one array.

Format: the end of http://yann.lecun.com/exdb/mnist/ as it was published.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from dfserve.errors import StoreError

_UBYTE = 0x08  # the type code of unsigned bytes, the only one that MNIST and its kin use
_GZIP = b"\x1f\x8b"  # how a gzip file begins, whatever it is called
# The largest of MNIST's kin (EMNIST) has 814,255 items. More than this is a damaged header, to be refused before memory
# is taken for it.
_MOST_ITEMS = 1 << 20


def read_idx(path: Path, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read a file of unsigned bytes, gzipped or not.

    Args:
        path: the file.
        item_shape: the shape that each item must have; ``()`` for labels.

    Returns:
        A read-only uint8 array of shape (items, *item_shape).

    Raises:
        StoreError: the file is of another format or shape, truncated, too long or damaged.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        try:
            with cast("BinaryIO", gzip.open(file)) if zipped else file as stream:
                return _read(stream, path, item_shape)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise StoreError(f"{path} is damaged: gunzipping it fails ({error}); {_REMEDY}") from error


_REMEDY = "remove it to have it downloaded again"


def _read(stream: BinaryIO, path: Path, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    dimensions = 1 + len(item_shape)
    header = stream.read(4 + 4 * dimensions)
    magic = bytes([0, 0, _UBYTE, dimensions])
    if header[:4] != magic:
        raise StoreError(
            f"{path} is no idx file of unsigned bytes in {dimensions} dimensions: it begins with"
            f" {header[:4].hex() or 'nothing'}, not {magic.hex()}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise StoreError(f"{path} is truncated within its header, after {len(header)} bytes; {_REMEDY}")
    count, *shape = struct.unpack(f">{dimensions}I", header[4:])
    if tuple(shape) != item_shape or count > _MOST_ITEMS:
        raise StoreError(
            f"{path} says that it has {count:,} items of shape {tuple(shape)}; here at most {_MOST_ITEMS:,} of shape"
            f" {item_shape} are read"
        )
    expected = count * math.prod(item_shape)
    body = stream.read(expected + 1)  # one more: to see what is too long, and to have gzip check its own checksum
    if len(body) != expected:
        raise StoreError(
            f"{path} is damaged: its header says that {expected:,} bytes follow, but there are"
            f" {'more' if len(body) > expected else f'{len(body):,}'}; {_REMEDY}"
        )
    array: npt.NDArray[np.uint8] = np.frombuffer(body, np.uint8).reshape(count, *item_shape)
    return array
