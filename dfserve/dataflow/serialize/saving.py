"""Owns what every save shares: a file that gets its name only when it is complete, and the pass that fills it.

A save writes into a *partial*, ``.NAME.RANDOM.partial`` in the same folder, which is flushed to the disk and then put
in place. While it is written its ``flock`` is held, so the next save knows by the kernel's word, on whichever machine
and in whichever container, that the partial of a killed one belongs to nobody, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from dfserve.dataflow.adapt import as_dataflow
from dfserve.dataflow.base import DataFlow, Datapoint, known_length
from dfserve.errors import ConfigError

log = logging.getLogger("dfserve.dataflow")

SUFFIX = ".partial"
LOG_EVERY = 30.0  # seconds between lines about a long save: enough to see that it lives


@contextlib.contextmanager
def unfinished(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Lend the path of an empty partial; at the end of the block it is flushed to the disk and becomes ``path``.

    If the block raises, the partial is removed; after ``kill -9`` it stays until the next save to ``path``. Whatever
    writes to it must write into that file, not put another in its place, and must have closed it at the end of the
    block. The file is locked by ``flock``, which what writes to it must not try too.

    Args:
        path: the file to be; of a symbolic link, what it points to.
        replace: whether ``path`` may exist. It is then replaced in one step, by a file that the same users may read and
            write, and a failed save leaves it as it was.

    Raises:
        ConfigError: ``path`` is a folder or in none, or exists without ``replace``, also if that became so meanwhile.
    """
    target = Path(os.path.realpath(path))
    _check(target, replace)
    _remove_stale(target)
    old = target.stat() if target.exists() else None
    partial, lock = _create(target, 0o666 if old is None else 0o600)
    owner = os.getpid()
    try:
        yield partial
        _flush(partial)
        if old is not None:
            _admit_the_same(lock, old)
        _put_in_place(partial, target, replace)
        _flush_folder(target.parent)
    finally:
        if os.getpid() == owner:  # not a child that was forked in the block and leaves it by an exception
            partial.unlink(missing_ok=True)
        os.close(lock)


def _check(target: Path, replace: bool) -> None:
    if target.is_dir():
        raise ConfigError(f"{target} is a folder: give the path of a file in it")
    if not target.parent.is_dir():
        raise ConfigError(f"there is no folder {target.parent} to save {target.name} in: make it first")
    if target.exists() and not replace:
        raise _exists(target)


def _exists(target: Path) -> ConfigError:
    return ConfigError(f"{target} exists already and is not overwritten: remove it, or save under another name")


def _remove_stale(target: Path) -> None:
    """Remove the partials of saves to ``target`` that no process is writing any more."""
    partials = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}" + re.escape(SUFFIX))
    with os.scandir(target.parent) as entries:
        names = [entry.name for entry in entries if partials.fullmatch(entry.name)]
    for name in names:
        # Somebody else's, or removed meanwhile: nothing to do about it, and no reason to fail.
        with contextlib.suppress(OSError):
            descriptor = os.open(target.parent / name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (target.parent / name).unlink()
                log.warning("removed %s, which an interrupted save left behind", target.parent / name)
            finally:
                os.close(descriptor)


def _create(target: Path, mode: int) -> tuple[Path, int]:
    """Create a partial of this mode, less the umask. Returns it and a descriptor that holds its lock."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{SUFFIX}")
        try:
            descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
        except FileExistsError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another save took it for a stale one in this very moment, and removes it
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks: then nobody can take it for stale either
            return partial, descriptor
        if os.fstat(descriptor).st_nlink:
            return partial, descriptor
        os.close(descriptor)  # as above, a moment earlier


def _admit_the_same(descriptor: int, old: os.stat_result) -> None:
    # Only root may give a file away, and should: else those whose private file it replaces could not read it any more.
    with contextlib.suppress(OSError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _flush(partial: Path) -> None:
    descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path, replace: bool) -> None:
    if replace:
        partial.replace(target)
        return
    try:
        os.link(partial, target)  # unlike a rename it fails if the name is taken
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without hard links
        _check(target, replace)
        partial.rename(target)


def _flush_folder(folder: Path) -> None:
    # The file's bytes are safe already; some network file systems cannot flush a folder, and need not.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def one_pass(ds: Any, path: str | os.PathLike[str]) -> Iterator[Iterator[Datapoint]]:
    """Reset ``ds`` and lend one pass over it, which tells how far it is.

    On a terminal with tqdm that is a progress bar, else a line in the log ``dfserve.dataflow`` every 30 s.

    Args:
        ds: a DataFlow, or what ``as_dataflow`` makes one of: tensorpack's, a data set with a length, an iterable.
        path: what is being written, for the messages.

    Raises:
        ConfigError: ``ds`` is nothing that has datapoints.
    """
    flow = as_dataflow(ds)
    flow.reset_state()
    total = known_length(flow)
    begin = time.monotonic()
    bar = _bar(path, total)
    counted = _counted(flow, os.fspath(path), total, bar)
    try:
        yield counted
    finally:
        counted.close()  # ends the pass of ds too, and what it started
        if bar is not None:
            bar.close()
    log.info("saved %s in %.1f s", path, time.monotonic() - begin)


def _counted(flow: DataFlow, path: str, total: int | None, bar: Any) -> Generator[Datapoint, None, None]:
    due = time.monotonic() + LOG_EVERY
    for count, datapoint in enumerate(flow, 1):
        yield datapoint
        if bar is not None:
            bar.update()
        elif time.monotonic() >= due:
            due += LOG_EVERY
            log.info("saving %s: %d datapoints of %s", path, count, "an unknown number" if total is None else total)


def _bar(path: str | os.PathLike[str], total: int | None) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:  # it comes with dfserve[producer]; a bar is no reason to fail
        return None
    return tqdm(total=total, desc=Path(path).name, smoothing=0.2)
