"""Owns the lock under which a published file is downloaded and unpacked: its half file, freed also by being killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger("dfserve.dataflow")

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what some network file systems answer to flock


def lock_of(path: Path) -> Path:
    """Return the half file of a published file."""
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def held(path: Path) -> Iterator[BinaryIO]:
    """Open ``path``, made if it is missing, for this process alone; it is removed if it is empty in the end.

    Whoever holds it frees it by ending, however it ends, so waiting has an end. Where the file system knows no locks, a
    file of another name, which is removed in the end, is opened instead: nobody waits, and nothing is exclusive.
    """
    private = False
    while True:
        with path.open("a+b") as part:
            if not private and not _locked(part):
                # A name that nobody else has does instead; it cannot be resumed.
                _drop(path, part, also_full=False)
                path, private = path.with_name(f"{path.name}.{uuid.uuid4().hex}"), True
                continue
            if not _is_still(path, part):  # completed, or given up, while we waited
                continue
            try:
                yield part
            finally:
                _drop(path, part, also_full=private)
                if not private:
                    # Closing is not enough: a child that another thread forked meanwhile has the file open too.
                    fcntl.flock(part, fcntl.LOCK_UN)
            return


def _locked(part: BinaryIO) -> bool:
    """Lock the file, when it is free; False where the file system knows no locks."""
    try:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process downloads or unpacks with %s; waiting for it", part.name)
            fcntl.flock(part, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_still(path: Path, part: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(part.fileno()))
    except FileNotFoundError:
        return False


def _drop(path: Path, part: BinaryIO, also_full: bool) -> None:
    if _is_still(path, part) and (also_full or part.seek(0, os.SEEK_END) == 0):
        path.unlink(missing_ok=True)
