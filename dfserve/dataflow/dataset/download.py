"""Owns fetching a published file: resumed where it broke off, checked, and there whole or not at all.

The bytes go to ``<name>.part``, which several processes lock in turn, and which takes the file's name once its checksum
is right. Whatever a server sends, no more than the published size is stored.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dfserve.dataflow.dataset.locks import held, lock_of
from dfserve.dataflow.dataset.progress import Progress
from dfserve.dataflow.dataset.published import Published
from dfserve.dataflow.dataset.transfer import Failure, Pace, transfer
from dfserve.errors import DownloadError, StoreError

log = logging.getLogger("dfserve.dataflow")

_LONGEST_PAUSE = 60.0  # seconds; also for a server that asks for more with Retry-After
_HEADWAY = 1 << 20  # bytes: an attempt that brought so many was worth it, and the count of failed ones starts anew


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        rounds: attempts in a row, over all addresses, that bring nothing. 4, about 8 s of pauses: where there is no
            network at all, one should learn it soon.
        pause: seconds before the second round; doubled for each further one.
        pace: when a connection counts as dead.
    """

    rounds: int = 4
    pause: float = 1.0
    pace: Pace = field(default_factory=Pace)


def fetch(file: Published, folder: Path, patience: Patience | None = None) -> Path:
    """Return the path of ``file`` in ``folder``, downloaded if it is not there yet, and with the right checksum.

    Any number of processes may ask for the same file: one downloads, the others wait until it has, or has ended.

    Raises:
        DownloadError: it could not be fetched or stored. What came is kept, and the next call goes on from there.
        StoreError: there is a file of that name, but it is not the published one.
        ImportError: urllib3 is missing.
    """
    path = folder / file.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with held(lock_of(path)) as part:
                if not path.exists():
                    _complete(part, file, path, patience or Patience())
                    Path(part.name).replace(path)
                    return path
        _check(path, file)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{file.name} ({file.size:,} bytes) cannot be stored in {folder}: {error.strerror or error}; name another"
            " folder with dir=... or the variable DFSERVE_DATASET"
        ) from error
    return path


def _complete(part: BinaryIO, file: Published, path: Path, patience: Patience) -> None:
    """Fill the half file up from whichever address answers, until its checksum is right."""
    addresses, failures = list(file.addresses), dict[str, str]()
    failed, reached = 0, part.seek(0, os.SEEK_END)
    log.info("downloading %s (%.1f MB) to %s", file.name, file.size / 1e6, path.parent)
    while failed < patience.rounds and addresses:
        wait = 0.0
        failed += 1
        for address in list(addresses):
            try:
                _attempt(part, file, address, patience.pace)
                return
            except Failure as failure:
                log.warning("%s: %s", address, failure)
                failures[address], wait = str(failure), max(wait, failure.wait)
                if failure.final:
                    addresses.remove(address)
            if (size := part.seek(0, os.SEEK_END)) >= reached + _HEADWAY:
                failed, reached = 0, size
        if failed < patience.rounds and addresses:
            _pause(patience.pause * 2 ** max(failed - 1, 0), wait)
    raise DownloadError(_what_to_do(file, path, failures))


def _pause(pause: float, asked: float) -> None:
    # Spread out, so that many machines that lost one server do not come back to it at once.
    time.sleep(min(_LONGEST_PAUSE, max(asked, pause * random.uniform(0.5, 1.0))))  # noqa: S311  # no secret


def _attempt(part: BinaryIO, file: Published, address: str, pace: Pace) -> None:
    """Fetch what is missing from one address, and check the whole."""
    while True:
        start = _fill(part, file, address, pace)
        digest = _sha256(part)
        if digest == file.sha256:
            os.fsync(part.fileno())
            return
        part.truncate(0)
        if start == 0:
            raise Failure(f"sent a file with the checksum sha256 {digest}, not {file.sha256}", final=True)
        # What was there before may be to blame, and not this address. To go on to the next one would blame that one in
        # turn, for what a bad one left. So this one is asked for the whole, at once.
        log.info("%s: the sha256 is wrong after going on at byte %d; once more from the start", address, start)


def _fill(part: BinaryIO, file: Published, address: str, pace: Pace) -> int:
    """Fetch what is missing, if anything is; return how many bytes were there before."""
    start = part.seek(0, os.SEEK_END)
    if start >= file.size:
        return start
    progress = Progress(file.name, file.size, start)
    try:
        transfer(part, address, file.size, pace, progress.add)
    finally:
        progress.close()
        part.flush()
    return start


def _check(path: Path, file: Published) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        digest = _sha256(stream) if size == file.size else "not computed"
    if digest != file.sha256:
        raise StoreError(
            f"{path} is not the published {file.name}: it has {size:,} bytes and the sha256 {digest}, instead of"
            f" {file.size:,} and {file.sha256}; remove it to have it downloaded again"
        )


def _sha256(stream: BinaryIO) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _what_to_do(file: Published, path: Path, failures: dict[str, str]) -> str:
    tried = "; ".join(f"{address}: {failure}" for address, failure in failures.items())
    return (
        f"{file.name} ({file.size:,} bytes) could not be downloaded. Tried {tried}. Where the network does not allow"
        f" it, fetch the file elsewhere and put it at {path} (sha256 {file.sha256})"
    )
