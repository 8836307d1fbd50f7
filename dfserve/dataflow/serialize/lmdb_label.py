"""Owns the label of an LMDB file: who wrote it, in which codec, how many datapoints; and the marks of tensorpack's.

Datapoints lie under their place in decimal digits, so that LMDB's order is theirs and no list of keys need be stored:
12 digits in dfserve's files, which have a label under ``__dfserve__``, and 8 in tensorpack's, with ``__keys__``.
"""

from __future__ import annotations

import json
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfserve.errors import StoreError
from dfserve.version import __version__

LABEL = b"__dfserve__"  # sorts after all digits
TENSORPACK_KEYS = b"__keys__"
DIGITS = 12
TENSORPACK_DIGITS = 8
FORMAT = "dfserve-lmdb"
VERSION = 1  # raised when an older reader could misread the file
CODEC = "dfserve-block 1"
_LISTS = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})  # how a list begins in msgpack
_PICKLE = 0x80
_CONVERT = (
    "in an environment with tensorpack, convert it: dfserve.dataflow.LMDBSerializer.save("
    "tensorpack.dataflow.LMDBSerializer.load({path!r}, shuffle=False), NEW_PATH)"
)


@dataclass(frozen=True)
class Label:
    """What is known of a file of datapoints.

    Attributes:
        count: datapoints.
        digits: of a key.
        raw: the bytes that tell this file from another that took its place.
        schema: see ``dfserve.dataflow.serialize.schema``; None in a file without datapoints, and in tensorpack's.
        is_tensorpack: the values are tensorpack's msgpack.
    """

    count: int
    digits: int
    raw: bytes
    schema: dict[str, Any] | None = None
    is_tensorpack: bool = False

    @property
    def form(self) -> bytes:
        """What makes a key of a place: ``form % place``."""
        return b"%%0%dd" % self.digits


def write_label(count: int, schema: dict[str, Any] | None) -> bytes:
    """Return the label of a file that dfserve wrote: a JSON text, after its length and CRC-32 in hexadecimal digits.

    ``id`` is different for every save, so that a reader notices when a file takes another's place.
    """
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "codec": CODEC,
        "count": count,
        "schema": schema,
        "writer": f"dfserve {__version__}",
        "id": secrets.token_hex(8),
    }
    text = json.dumps(fields).encode()
    return b"%08x%08x" % (len(text), zlib.crc32(text)) + text


def read_label(txn: Any, path: Path) -> Label:
    """Return the label of a file.

    Args:
        txn: an LMDB transaction, of buffers.
        path: of the file, for the messages.

    Raises:
        StoreError: the file holds no datapoints of dfserve, and none of tensorpack that can be read without unpickling;
            or it is damaged.
    """
    entries = int(txn.stat()["entries"])
    raw = txn.get(LABEL)
    if raw is not None:
        return _own(raw, entries, path)
    raw = txn.get(TENSORPACK_KEYS)
    if raw is not None:
        return _tensorpacks(txn, bytes(raw[:1]), entries, path)
    raise StoreError(
        f"{path} is an LMDB with {entries} entries and no label of dfserve's: it was not written by"
        f" LMDBSerializer.save; its entries{_first_key(txn)} can be read as bytes with LMDBData, and decoded with"
        " LMDBDataDecoder"
    )


def _own(raw: memoryview, entries: int, path: Path) -> Label:
    try:
        length, checksum = int(bytes(raw[:8]), 16), int(bytes(raw[8:16]), 16)
        # The length first: where LMDB's own pages are damaged, `raw` may reach beyond the file.
        if length != len(raw) - 16 or checksum != zlib.crc32(raw[16:]):
            raise ValueError("its length or checksum is wrong")
        fields = json.loads(bytes(raw[16:]))
        found = (fields["format"], fields["version"], fields["codec"])
        count, schema = fields["count"], fields["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: its label cannot be read: {error}") from None
    if found != (FORMAT, VERSION, CODEC):
        raise StoreError(
            f"{path} was written in the format {found}; this version of dfserve reads {(FORMAT, VERSION, CODEC)}"
        )
    if count != entries - 1:
        raise StoreError(f"{path} is damaged: it has {entries - 1} datapoints, and its label says {count}")
    return Label(count, DIGITS, bytes(raw), schema)


def _tensorpacks(txn: Any, first: bytes, entries: int, path: Path) -> Label:
    if first[0] not in _LISTS:
        written = "with pickle, which dfserve never opens" if first[0] == _PICKLE else "in a format that is not msgpack"
        raise StoreError(f"{path} was written by tensorpack {written}; {_CONVERT.format(path=str(path))}")
    label = Label(entries - 1, TENSORPACK_DIGITS, b"tensorpack %d" % entries, is_tensorpack=True)
    ends = {0, label.count - 1} if label.count else set()
    if any(txn.get(label.form % place) is None for place in ends):
        raise StoreError(f"{path} is damaged: it has tensorpack's list of keys, and not the entries {sorted(ends)}")
    return label


def _first_key(txn: Any) -> str:
    with txn.cursor() as cursor:
        return f" (the first key is {bytes(cursor.key())[:40]!r})" if cursor.first() else ""
