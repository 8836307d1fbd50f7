"""Owns the ledger's place in the file system: its folder, its lock against a second broker, new files under its name.

The lock is flock(2) on the ledger itself: it ends with the process, however that ends. A new file comes under the name
only when it is complete and on disk, so that a crash leaves no half-made ledger; one that takes an older one's place is
locked before that. Who had opened the older file finds that the name leads elsewhere now, and looks again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dfserve.errors import LedgerError
from dfserve.listeners import Holder, command_of

FOLDER_MODE = 0o700  # what was claimed is the user's own affair
TRIES = 100  # each but the last means that another broker made or replaced the file at that very moment
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def named_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into a LedgerError that names the file, what was being done, and the remedy."""
    try:
        yield
    except OSError as error:
        raise LedgerError(f"ledger {path}: {error.strerror or error} {doing}; {_remedy(error)}") from error


def _remedy(error: OSError) -> str:
    if error.errno in FULL:
        return "claims cannot be made durable: make room (or raise the limit) there, then start the broker again"
    if error.errno in FORBIDDEN:
        return "the broker's user must be able to write it and its folder; or choose another file with --ledger"
    return "claims cannot be made durable there: see to the disk, or choose another file with --ledger"


def open_locked(path: Path, fresh: bytes) -> int:
    """Open a ledger and lock it for as long as the descriptor is open; make it, and its folder, if there is none.

    Args:
        path: the file, with links resolved.
        fresh: the content of a new file.

    Raises:
        LedgerError: another process holds it, or it is no regular file.
        OSError: whatever the system says.
    """
    for _ in range(TRIES):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)  # nonblocking: never wait at a pipe
        except FileNotFoundError:
            _create(path, fresh)
            continue
        try:
            if _hold(fd, path):
                _remove_leftovers(path)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise LedgerError(f"ledger {path}: it was replaced {TRIES} times while it was opened; do several brokers use it?")


def replace(path: Path, content: bytes) -> int:
    """Put a new file in the place of a ledger whose lock the caller holds; returns its descriptor, locked.

    When this returns, the new file is on disk under the name. The caller closes the old one then.
    """
    fd, temporary = _write_new(path, content)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        os.close(fd)
        temporary.unlink(missing_ok=True)
        raise
    return fd


def sync_folder(folder: Path) -> None:
    """Put the folder's names on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all bytes at an offset; the system may take fewer at a time, above all when a disk is nearly full."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def _create(path: Path, content: bytes) -> None:
    """Make the file, unless another process is first. A hard link never replaces, as a rename would."""
    make_folder(path.parent)
    fd, temporary = _write_new(path, content)
    os.close(fd)
    try:
        # Not found: another broker, which has the lock by now, took our file for one that was left over.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder that only the user can look into, and those above it, and put their names on disk."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(FOLDER_MODE, exist_ok=True)
        sync_folder(parent.parent)


def _write_new(path: Path, content: bytes) -> tuple[int, Path]:
    fd, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".new", dir=path.parent)  # mode 0600
    try:
        write_all(fd, content, 0)
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        Path(name).unlink(missing_ok=True)
        raise
    return fd, Path(name)


def _prefix(path: Path) -> str:
    return f".{path.name}."


def _remove_leftovers(path: Path) -> None:
    """Remove new files that a crash kept from their place. Only the holder of the lock may."""
    for entry in path.parent.iterdir():
        if entry.name.startswith(_prefix(path)) and entry.name.endswith(".new"):
            entry.unlink(missing_ok=True)


def _hold(fd: int, path: Path) -> bool:
    """Lock an open file. False if the name leads to another file by now."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise LedgerError(f"ledger {path}: it is no regular file; choose another with --ledger")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LedgerError(
            f"ledger {path} is in use by {_holder(fd)}; two brokers on one ledger would hand items out twice: "
            "stop that one, or choose another file with --ledger"
        ) from None
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))  # noqa: PTH116  # beside fstat, which Path has not
    except FileNotFoundError:
        return False


def _holder(fd: int) -> Holder:
    """Who has the lock, as far as /proc tells: it knows no process outside of our pid namespace."""
    status = os.fstat(fd)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        columns = line.split()  # number, FLOCK, ADVISORY, WRITE, pid, device:inode, from, to
        if len(columns) == 8 and columns[1] == "FLOCK" and columns[5] == file and columns[4].isdigit():
            pid = int(columns[4])
            return Holder(pid, command_of(pid)) if pid else Holder(None, "")
    return Holder(None, "")
