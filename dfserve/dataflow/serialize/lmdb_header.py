"""Owns whether an LMDB data file is whole, judged from its first two pages, which are read and not mapped.

LMDB maps the file and trusts it: touching a page that a cut-off file does not have kills the process with SIGBUS.
The layout of a page is that of LMDB 0.9 and, with a longer head, of LMDB 1.0, on machines of 64 bits.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from dfserve.errors import StoreError

_MAGIC = struct.pack("=I", 0xBEEFC0DE)  # in the byte order of the machine that wrote it
_MAGIC_AT = (16, 24)  # bytes into a meta page: the length of a page's head in LMDB 0.9 and 1.0
_PAGE_SIZE = struct.Struct("=24xI")  # from the magic on
_LAST_PAGE = struct.Struct("=120xQQ")  # from the magic on: the last page in use, and the transaction's number
_HEAD_BYTES = 256  # more than a meta page uses
_PAGE_SIZES = [1 << bits for bits in range(8, 17)]  # bytes; what LMDB admits


def data_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the data file that ``path`` means: in a folder, as LMDB makes by default, a file."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links
    return absolute / "data.mdb" if absolute.is_dir() else absolute


def check_whole(path: Path) -> None:
    """Look whether all pages that a data file says it uses are there.

    Raises:
        StoreError: they are not, or it is no LMDB data file.
        OSError: it cannot be read.
    """
    needed, size = _bytes_in_use(path)
    if size < needed:
        raise StoreError(
            f"{path} has {size} bytes and LMDB's pages in use end at {needed}: it was cut short, by a copy that broke"
            " off or a disk that was full; copy or save it again"
        )


def complete(path: Path) -> None:
    """Extend a data file that was just written to all pages in use: LMDB does not write trailing ones that are free."""
    needed, size = _bytes_in_use(path)
    if size < needed:
        os.truncate(path, needed)


def _bytes_in_use(path: Path) -> tuple[int, int]:
    """Return how many bytes the pages in use take, and how many the file has."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        at = next((at for at in _MAGIC_AT if head[at : at + len(_MAGIC)] == _MAGIC), None)
        if at is None or len(head) < _HEAD_BYTES:
            raise StoreError(f"{path} is no LMDB data file, or one of a machine with another byte order or 32 bits")
        (page_size,) = _PAGE_SIZE.unpack_from(head, at)
        if page_size not in _PAGE_SIZES:
            raise StoreError(f"{path} is damaged: it says that LMDB's pages have {page_size} bytes")
        file.seek(page_size)
        second = file.read(_HEAD_BYTES)
        if len(second) < _HEAD_BYTES or second[at : at + len(_MAGIC)] != _MAGIC:
            raise StoreError(f"{path} is damaged or was cut short: its second page is not LMDB's")
        last, _ = max((_LAST_PAGE.unpack_from(page, at) for page in (head, second)), key=lambda meta: meta[1])
        return (last + 1) * page_size, os.fstat(file.fileno()).st_size
