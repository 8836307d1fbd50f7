"""Owns the memory that a broker shares with a consumer on its machine: the file, the two maps of it, and their end.

The broker makes a file in /dev/shm, the consumer maps it read-only, and then its name is removed: it lives as long as
the maps, and nothing is left behind by a SIGKILL. Between those two moments the broker holds a lock on it, by which the
next one tells what is abandoned (a pid says nothing in another container). Memory is reserved before it is written: in
a /dev/shm that is full, a write to what was not would kill the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dfserve.sharing.extents import GRAIN
from dfserve.sharing.places import Places
from dfserve.sharing.view import NONCE_BYTES, View
from dfserve.wire.columns import aligned

log = logging.getLogger("dfserve.arena")

FOLDER = Path("/dev/shm")  # noqa: S108  # shared memory; files in it are made with O_EXCL, and for this user only
PREFIX = "dfserve-"
PART = 256 << 10  # bytes that are copied to one place and then to the next: they stay in the second-level cache
LEAST = 8 << 20  # bytes; a smaller arena holds too few blocks to be worth it


class Placed(NamedTuple):
    """A block in an arena.

    Attributes:
        address: where it begins.
        lengths: bytes of each frame; they begin at multiples of 64.
        pieces: what was copied, one for each piece that was given, where it lies now: read-only.
    """

    address: int
    lengths: list[int]
    pieces: list[memoryview]


class Arena(Places):
    """The broker's side.

    Args:
        size: bytes at most; less where /dev/shm has less than twice as much.

    Raises:
        OSError: there is no /dev/shm, or not enough room in it.
    """

    def __init__(self, size: int) -> None:
        room = os.statvfs(FOLDER)
        self.size = min(size, room.f_bavail * room.f_frsize // 2 // GRAIN * GRAIN)
        if self.size < LEAST:
            raise OSError(
                errno.ENOSPC, f"{FOLDER} has room for {2 * self.size >> 20} MiB, and {2 * LEAST >> 20} are needed"
            )
        self.path = FOLDER / (PREFIX + secrets.token_hex(8))
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, self.size)
            super().__init__(file, self.size, self.nonce)
        except BaseException:
            self.unlink()
            os.close(file)
            raise

    def place(self, frames: Sequence[Sequence[Any]]) -> Placed | None:
        """Copy a block's frames, each of one or more pieces, to where there is room for all; None: there is not.

        The place is free again when the consumer has given it back, and nothing here refers to the returned pieces.
        """
        return place_in([self], frames)[0]

    def lease(self, nbytes: int) -> tuple[int, memoryview] | None:
        """Return the address and the memory of a place that the consumer will have; None: there is no room."""
        memory = self.take(nbytes)
        if memory is None:
            return None
        view = memory.data  # only a memoryview of the lease itself keeps it alive
        address = self.address_of(view)
        assert address is not None, "it was taken from here"
        self.lend(address, nbytes)
        return address, view

    def _out_of_memory(self) -> None:
        log.warning(
            "%s is full: %d MiB are shared with a consumer, and blocks beyond that go through its socket. More room"
            " (docker: --shm-size) makes that faster", FOLDER, self.full >> 20
        )  # fmt: skip

    def unlink(self) -> None:
        """Remove the name: from now on the memory lives as long as the maps."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Let go of the memory. It lives on in the consumer's map, and in what refers to a block in it."""
        self.unlink()
        super().close()


def place_in(arenas: Sequence[Arena], frames: Sequence[Sequence[Any]]) -> list[Placed | None]:
    """Copy a block's frames, as `Arena.place` does, into several arenas at once.

    Part by part into all of them: the second copy of a part reads it from the processor's caches.
    """
    lengths = [sum(map(len, pieces)) for pieces in frames]
    rooms = [arena.lease(sum(map(aligned, lengths))) for arena in arenas]
    memories = [room[1] for room in rooms if room is not None]
    places: list[slice] = []
    start = 0
    for pieces, length in zip(frames, lengths, strict=True):
        end = start
        for piece in pieces:
            places.append(slice(end, end + len(piece)))
            _copy(memoryview(piece).cast("B"), [memory[places[-1]] for memory in memories])
            end += len(piece)
        start += aligned(length)
    return [
        None if room is None else Placed(room[0], lengths, [room[1][place].toreadonly() for place in places])
        for room in rooms
    ]


def _copy(piece: memoryview, copies: Sequence[memoryview]) -> None:
    if len(copies) == 1:
        copies[0][:] = piece
        return
    for start in range(0, len(piece), PART):
        part = piece[start : start + PART]
        for copy in copies:
            copy[start : start + PART] = part


class ArenaView(View):
    """The consumer's side: read-only.

    Args:
        path, size, nonce: as the broker says.

    Raises:
        OSError: there is no such file here: the broker is in another container, or on another machine.
        ValueError: it is another file.
    """

    def __init__(self, path: str, size: int, nonce: bytes) -> None:
        if os.path.dirname(path) != str(FOLDER):  # noqa: PTH120  # a comparison of texts
            raise ValueError(f"an arena at {path!r}")
        super().__init__(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), size, nonce)


def machine() -> str:
    """Return what names this machine until it starts again; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def reap() -> int:
    """Remove the files of brokers that were killed before their consumer had mapped them. Returns how many."""
    count = 0
    with contextlib.suppress(OSError):
        for path in FOLDER.glob(PREFIX + "*"):
            with contextlib.suppress(OSError):
                count += _reap(path)
    return count


def _reap(path: Path) -> bool:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held: it is in use
        path.unlink()
    finally:
        os.close(file)
    return True
