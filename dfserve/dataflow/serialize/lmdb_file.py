"""Owns LMDB files that are open for reading: each once in a process, and never one that a parent process opened.

Opening a file twice in one process is an error of LMDB's, and so is the use of one that was open when the process was
forked. The files are opened without LMDB's lock: nobody writes to a file that a save has put in place, readers need
nothing to be written beside it then, and it may lie on a disk that is mounted read-only. They are shared by everything
in a process that reads them, and closed with the last of it.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

from dfserve.dataflow.serialize.lmdb_header import check_whole
from dfserve.errors import StoreError

_open: weakref.WeakValueDictionary[tuple[int, int], OpenFile] = weakref.WeakValueDictionary()
_lock = threading.RLock()  # re-entrant: a garbage collection within `opened` may end an OpenFile


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may hold the old one for ever


os.register_at_fork(after_in_child=_renew_lock)


class OpenFile:
    """An LMDB data file that is open for reading, for as long as somebody holds this.

    Attributes:
        env: the ``lmdb.Environment``.
        pid: the process that opened it, the only one that may use it.
    """

    env: Any = None

    def __init__(self, path: Path) -> None:
        lmdb = import_lmdb()
        try:
            # The map's size: LMDB takes that of the pages in use, which is larger than 1.
            self.env = lmdb.open(os.fspath(path), subdir=False, readonly=True, lock=False, map_size=1)
        except lmdb.Error as error:
            raise StoreError(f"LMDB cannot open {path}: {error}") from error
        self.pid = os.getpid()

    def __del__(self) -> None:
        # Within the lock, so that nobody opens the file again while it counts as open still.
        with _lock:
            self.pid = -1
            if self.env is not None:
                self.env.close()


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
        file = _open.get(key)
        if file is not None and file.pid == os.getpid():
            return file
        if file is not None:
            file.env.close()  # of the parent: LMDB knows that, lets go of it here and leaves it to the parent
        check_whole(path)
        file = _open[key] = OpenFile(path)
        return file


def import_lmdb() -> Any:
    """Return the module ``lmdb``; raise ImportError with the remedy where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("LMDB files need the package lmdb: pip install 'dfserve[producer]'") from error
    return lmdb
