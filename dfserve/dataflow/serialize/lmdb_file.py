"""Owns LMDB files that are open for reading: each once in a process, and never one that a parent process opened.

Opening a file twice in one process is an error of LMDB's, and so is the use of one that was open when the process was
forked. The files are opened without LMDB's lock: nobody writes to a file that a save has put in place, readers need
nothing to be written beside it then, and it may lie on a disk that is mounted read-only. They are shared by everything
in a process that reads them, and closed with the last of it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from dfserve.dataflow.serialize.lmdb_header import check_whole
from dfserve.errors import StoreError

_fstat = os.fstat  # a quarter of what looking takes is finding it
_open: dict[tuple[int, int], _Shared] = {}  # by device and inode
# Re-entrant: a garbage collection within `opened` may drop an OpenFile.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may hold the old one for ever


os.register_at_fork(after_in_child=_renew_lock)


class _Shared:
    """A data file that a process has open, and how many hold it. A weak reference would not do: it is gone before the
    file is closed, and whoever comes in between would open it twice.
    """

    def __init__(self, path: Path, key: tuple[int, int]) -> None:
        lmdb = import_lmdb()
        self.path = path
        self.key = key
        self.users = 0
        self.is_open = True
        self.pid = os.getpid()
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self.descriptor).st_size
            # The map's size: LMDB takes that of the pages in use, which is larger than 1.
            self.env = lmdb.open(os.fspath(path), subdir=False, readonly=True, lock=False, map_size=1)
        except lmdb.Error as error:
            os.close(self.descriptor)
            raise StoreError(f"LMDB cannot open {path}: {error}") from error

    def close(self) -> None:
        """Close it, once; of a parent process, LMDB knows that, lets go of it here and leaves it to the parent."""
        if self.is_open:
            self.is_open = False
            if _open.get(self.key) is self:
                del _open[self.key]
            self.env.close()
            os.close(self.descriptor)


class OpenFile:
    """An LMDB data file that is open for reading, for as long as somebody holds this or another of the same file.

    Attributes:
        env: the ``lmdb.Environment``, the same for all who hold the file in a process.
        pid: the process that opened it, the only one that may use it.
    """

    def __init__(self, shared: Any) -> None:
        """Hold ``shared``, in which this was counted already."""
        self._shared = shared
        self.env = shared.env
        self.pid: int = shared.pid
        self._descriptor: int = shared.descriptor
        self._size: int = shared.size

    def check_size(self) -> None:
        """Look whether the file lost bytes since it was opened: LMDB would end the process with SIGBUS (1 µs).

        Raises:
            StoreError: it did.
        """
        if (size := _fstat(self._descriptor).st_size) < self._size:
            raise StoreError(
                f"{self._shared.path} had {self._size} bytes when it was opened and has {size} now: it was cut short"
                " or is being overwritten; save or copy to another name and rename"
            )

    def __del__(self) -> None:
        # Within the lock, so that nobody opens the file again while it counts as open still.
        with _lock:
            self._shared.users -= 1
            if not self._shared.users:
                self._shared.close()


def opened(path: Path) -> OpenFile:
    """Return a data file, open in this process.

    Raises:
        ImportError: lmdb is not installed.
        StoreError: it is cut short, damaged, or no LMDB data file.
        OSError: it cannot be read.
    """
    with _lock:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        while True:
            shared = _open.get(key)
            if shared is not None and shared.pid != os.getpid():
                shared.close()
                shared = None
            if shared is None:
                check_whole(path)
                shared = _open[key] = _Shared(path, key)
            shared.users += 1
            if shared.is_open:  # else a garbage collection closed it before it was counted
                return OpenFile(shared)


def import_lmdb() -> Any:
    """Return the module ``lmdb``; raise ImportError with the remedy where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("LMDB files need the package lmdb: pip install 'dfserve[producer]'") from error
    return lmdb
