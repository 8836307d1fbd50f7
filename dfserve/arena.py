"""Owns the memory that a broker shares with a consumer on its machine: the file, the two maps of it, and their end.

The broker makes a file in /dev/shm, the consumer maps it read-only, and then its name is removed: it lives as long as
the maps, and nothing is left behind by a SIGKILL. Between those two moments the broker holds a lock on it, by which the
next one tells what is abandoned (a pid says nothing in another container). Memory is reserved before it is written: in
a /dev/shm that is full, a write to what was not would kill the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import mmap
import os
import secrets
import stat
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfserve.wire.slots import ALIGNMENT, Slots, rounded

log = logging.getLogger("dfserve.arena")

FOLDER = Path("/dev/shm")  # noqa: S108  # shared memory; files in it are made with O_EXCL, and for this user only
PREFIX = "dfserve-"
NONCE_BYTES = 16
HEAD = 4096  # bytes before the first slot, of which the first are the nonce
GROWTH = 8 << 20  # bytes reserved at a time: reserving takes a page fault for each page
LEAST = 8 << 20  # bytes; a smaller arena holds too few blocks to be worth it


class Arena:
    """The broker's side.

    Args:
        size: bytes at most; less where /dev/shm has less than twice as much.

    Raises:
        OSError: there is no /dev/shm, or not enough room in it.
    """

    def __init__(self, size: int) -> None:
        room = os.statvfs(FOLDER)
        self.size = min(size, room.f_bavail * room.f_frsize // 2 // HEAD * HEAD)
        if self.size < LEAST:
            raise OSError(
                errno.ENOSPC, f"{FOLDER} has room for {2 * self.size >> 20} MiB, and {2 * LEAST >> 20} are needed"
            )
        self.path = FOLDER / (PREFIX + secrets.token_hex(8))
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, self.size)
            os.posix_fallocate(self._file, 0, HEAD)
            self._map = mmap.mmap(self._file, self.size)
        except BaseException:
            self.unlink()
            os.close(self._file)
            raise
        self._map[:NONCE_BYTES] = self.nonce
        self._memory = memoryview(self._map)
        self._slots = Slots(self.size - HEAD)
        self._reserved = 0  # bytes after the head
        self._full = False

    @property
    def used(self) -> int:
        """Bytes that are in slots."""
        return self._slots.used

    def place(self, frames: Sequence[Sequence[Any]]) -> tuple[int, list[int]] | None:
        """Copy frames, each of one or more pieces, into a slot.

        Returns:
            The slot's address and the bytes of each frame, which begin at multiples of 64; None if there is no room.
        """
        lengths = [sum(map(len, pieces)) for pieces in frames]
        address = self._slots.take(sum(map(rounded, lengths)))
        if address is None or not self._reserve(address + sum(map(rounded, lengths))):
            if address is not None:
                self._slots.give_back(address)
            return None
        place = HEAD + address
        for pieces, length in zip(frames, lengths, strict=True):
            start = place
            for piece in pieces:
                end = start + len(piece)
                self._memory[start:end] = memoryview(piece).cast("B")
                start = end
            place += rounded(length)
        return address, lengths

    def _reserve(self, end: int) -> bool:
        if end <= self._reserved:
            return True
        if self._full:
            return False
        wanted = min(-(-end // GROWTH) * GROWTH, self.size - HEAD)
        try:
            os.posix_fallocate(self._file, HEAD + self._reserved, wanted - self._reserved)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._full = True
            log.warning(
                "%s is full: %d MiB are shared with a consumer, and blocks beyond that go through its socket. More room"
                " (docker: --shm-size) makes that faster", FOLDER, self._reserved >> 20
            )  # fmt: skip
            return False
        self._reserved = wanted
        return True

    def give_back(self, address: int) -> bool:
        """Free a slot; False if there is none."""
        return self._slots.give_back(address)

    def unlink(self) -> None:
        """Remove the name: from now on the memory lives as long as the maps."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Let go of the memory. The consumer's map keeps what is in it."""
        self.unlink()
        self._memory.release()
        self._map.close()
        os.close(self._file)


class ArenaView:
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
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size or size < LEAST:
                raise ValueError(f"an arena of {size} bytes, and {path} has {found.st_size}")
            self._map = mmap.mmap(file, size, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        if self._map[:NONCE_BYTES] != nonce:
            raise ValueError(f"{path} is another arena")
        self._size = size
        self._kind = ctypes.c_ubyte * size  # longer than any slot: to make a type for each length takes 20 us
        self._start = np.frombuffer(self._map, np.uint8).ctypes.data
        self._pid = os.getpid()
        self._freed: deque[int] = deque()

    def frames(self, address: int, lengths: Sequence[int]) -> list[memoryview]:
        """Return the frames in a slot, which is free again when nothing refers to any of them.

        Raises:
            ValueError: they reach beyond the arena.
        """
        total = sum(map(rounded, lengths))
        if address % ALIGNMENT or address + total > self._size - HEAD:
            raise ValueError(f"a slot at {address} of {total} bytes in an arena of {self._size}")
        # Not a slice of the map: memoryviews of one object are told apart by nobody, and this object dies with its own.
        slot = self._kind.from_address(self._start + HEAD + address)
        weakref.finalize(slot, self._gone, address).atexit = False
        view = memoryview(slot).cast("B").toreadonly()[:total]
        frames = []
        start = 0
        for length in lengths:
            frames.append(view[start : start + length])
            start += rounded(length)
        return frames

    def _gone(self, address: int) -> None:
        if os.getpid() == self._pid:  # a forked child's end must not free what its parent uses
            self._freed.append(address)

    def take_freed(self) -> list[int]:
        """Return the addresses of slots that nothing refers to any more, once."""
        freed = self._freed
        return [freed.popleft() for _ in range(len(freed))]


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
