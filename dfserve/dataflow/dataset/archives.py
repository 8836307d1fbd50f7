"""Owns unpacking published archives: a file, or the folder of a whole archive, is there complete or not at all."""

from __future__ import annotations

import contextlib
import gzip
import logging
import re
import shutil
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from dfserve.dataflow.dataset.locks import held, lock_of
from dfserve.errors import StoreError

log = logging.getLogger("dfserve.dataflow")

# Bytes that an archive may unpack to; the largest one here has 0.5 GB. Its checksum was right, so this is against a
# mistake in ours.
_MOST = 1 << 31
_REMEDY = "remove it to have it downloaded again"


def take_files(archive: Path, names: Collection[str], folder: Path) -> None:
    """Copy files out of a tar archive into ``folder``, those that are not there yet.

    Of several processes that do so one unpacks, and the others wait until it has, or has ended.

    Args:
        archive: a tar file, compressed or not.
        names: of files, without the folders that they lie in there; nothing else is taken.
        folder: made if it does not exist.

    Raises:
        StoreError: the archive is damaged, unpacks to more than 2 GiB, or lacks a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(archive, folder, names):
        missing = {name for name in names if not (folder / name).exists()}
        if missing:
            log.info("unpacking %s to %s", archive, folder)
            _take(archive, missing, folder)


def _take(archive: Path, missing: set[str], folder: Path) -> None:
    size = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if member.isreg() and name in missing else None
                if content is None:
                    continue
                size = _within_limit(archive, size + member.size)
                _put(content, folder / name)
                missing.remove(name)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{archive} is damaged: {error}; {_REMEDY}") from error
    if missing:
        raise StoreError(f"{archive} has no {', '.join(sorted(missing))}; {_REMEDY}")


def unpack_folder(archive: Path, name: str) -> None:
    """Unpack the folder ``name`` of a zip archive beside the archive, if it is not there yet.

    Of several processes that do so one unpacks, and the others wait until it has, or has ended.

    Raises:
        StoreError: the archive is damaged, unpacks to more than 2 GiB, has no such folder, or there is another one.
    """
    with _alone(archive, archive.parent, [name]):
        if not (archive.parent / name).is_dir():
            log.info("unpacking %s", archive)
            _unpack(archive, name)


def _unpack(archive: Path, name: str) -> None:
    temporary = _temporary(archive.parent / name)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if member.filename.startswith(f"{name}/")]
            _within_limit(archive, sum(member.file_size for member in members))
            if not members:
                raise StoreError(f"{archive} has no folder {name}; {_REMEDY}")
            content.extractall(temporary, members)  # noqa: S202  # zipfile, unlike tarfile, keeps names within
        _rename(temporary / name, archive.parent / name)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{archive} is damaged: {error}; {_REMEDY}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _alone(archive: Path, folder: Path, names: Collection[str]) -> Iterator[None]:
    """Keep other processes from unpacking ``archive``, and remove what one that was killed left of ``names``."""
    lock = lock_of(archive)
    with held(lock) as file:
        if Path(file.name) == lock:  # else there are no locks here, and what is there may be somebody's work
            for name in names:
                _remove_leftovers(folder / name)
        yield


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _remove_leftovers(path: Path) -> None:
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}")  # as _temporary names them
    for left in [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]:
        log.info("removing %s, which a process that was killed left", left)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise
        # Another process was faster; or somebody began to unpack it by hand, and then they know better what it is.
        log.info("%s is there already (%s)", target, error.strerror)


def _within_limit(archive: Path, size: int) -> int:
    if size > _MOST:
        raise StoreError(f"{archive} unpacks to {size:,} bytes, more than the {_MOST:,} that any data set here has")
    return size


def _put(content: IO[bytes], path: Path) -> None:
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
