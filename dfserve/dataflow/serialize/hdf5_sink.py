"""Owns the file that HDF5 writes through: one whose writes never seem to fail, because HDF5 does not survive it.

Where the system refuses a write, for a disk that is full say, HDF5 keeps what it could not write, tries again when the
file is closed, and ends the process with a segmentation fault. So it is told that all went well, and the save asks
here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class Sink:
    """An empty file, open for writing by ``h5py.File(sink, "w")``; at the end of the block a failed write is raised.

    Attributes:
        error: of the first write that failed; nothing was written after it, and the file is worth nothing.
    """

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._file = path.open("r+b", buffering=0)

    def check(self) -> None:
        """Raise the error of the first write that failed, if one did: it is no use to go on."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self.error is not None and (error is None or isinstance(error, Exception)):
            raise self.error  # not what HDF5 makes of bytes that it believes to be there

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call() if self.error is None else None
        except BaseException as error:  # noqa: BLE001  # Ctrl-C in here must not reach HDF5 either
            self.error = error
            return None

    def _write_all(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    # What h5py calls:

    def write(self, data: Any) -> int:
        """Write all of ``data``, or remember why not."""
        view = memoryview(data).cast("B")
        self._try(lambda: self._write_all(view))
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the size in bytes, or remember why not."""
        self._try(lambda: self._file.truncate(size))
        return size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; beyond the end, if HDF5 believes that bytes are there."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in bytes."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what is there."""
        return self._file.readinto(buffer)

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        return self._file.read(size)
