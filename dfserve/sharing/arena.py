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
import mmap
import os
import secrets
import stat
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfserve.sharing.extents import GRAIN, Extents
from dfserve.sharing.loans import Bytes, LentMap
from dfserve.wire.columns import aligned

log = logging.getLogger("dfserve.arena")

FOLDER = Path("/dev/shm")  # noqa: S108  # shared memory; files in it are made with O_EXCL, and for this user only
PREFIX = "dfserve-"
NONCE_BYTES = 16
HEAD = GRAIN  # bytes before the first block, of which the first are the nonce
GROWTH = 8 << 20  # bytes reserved at a time: reserving takes a page fault for each page
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


class Arena:
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
        self._memory: Bytes = np.frombuffer(self._map, np.uint8)
        self._extents = Extents(self.size - HEAD)
        self._lent: set[int] = set()  # addresses that the consumer has not done with
        self._held: dict[int, weakref.ref[Bytes]] = {}  # those that the broker still refers to
        self._let_go: deque[int] = deque()  # filled by any thread
        self._reserved = 0  # bytes after the head
        self._full = False

    @property
    def used(self) -> int:
        """Bytes that are in use."""
        return self._extents.lent

    def place(self, frames: Sequence[Sequence[Any]]) -> Placed | None:
        """Copy a block's frames, each of one or more pieces, to where there is room for all; None: there is not.

        The place is free again when the consumer has given it back, and nothing here refers to the returned pieces.
        """
        return place_in([self], frames)[0]

    def take(self, nbytes: int) -> tuple[int, memoryview] | None:
        """Return the address and the memory of a place for so many bytes, to be filled; None: there is no room."""
        self._sweep()
        extent = self._extents.take(nbytes)
        if extent is None:
            return None
        if not self._reserve(extent + nbytes):
            self._extents.give_back(extent)
            return None
        address = HEAD + extent
        lease = self._memory[address : address + nbytes]
        self._lent.add(address)
        let_go = self._let_go
        self._held[address] = weakref.ref(lease, lambda _: let_go.append(address))
        return address, lease.data  # only a memoryview of the lease itself keeps it alive

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

    def give_back(self, address: int) -> None:
        """Note that the consumer has done with a block's place; what is none is ignored."""
        self._lent.discard(address)
        self._sweep()
        if address not in self._held:
            self._extents.give_back(address - HEAD)

    def _sweep(self) -> None:
        """Free what nothing here refers to any more, and the consumer has done with."""
        let_go = self._let_go
        while let_go:
            address = let_go.popleft()
            self._held.pop(address, None)
            if address not in self._lent:
                self._extents.give_back(address - HEAD)

    def unlink(self) -> None:
        """Remove the name: from now on the memory lives as long as the maps."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Let go of the memory. It lives on in the consumer's map, and in what refers to a block in it."""
        self.unlink()
        self._memory = np.empty(0, np.uint8)
        del self._map
        os.close(self._file)


def place_in(arenas: Sequence[Arena], frames: Sequence[Sequence[Any]]) -> list[Placed | None]:
    """Copy a block's frames, as `Arena.place` does, into several arenas at once.

    Part by part into all of them: the second copy of a part reads it from the processor's caches.
    """
    lengths = [sum(map(len, pieces)) for pieces in frames]
    rooms = [arena.take(sum(map(aligned, lengths))) for arena in arenas]
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
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size or size < LEAST:
            raise ValueError(f"an arena of {size} bytes, and {path} has {found.st_size}")
        self._size = size
        if bytes(self._map(HEAD)[:NONCE_BYTES]) != nonce:
            raise ValueError(f"{path} is another arena")
        self._pid = os.getpid()
        self._freed: deque[int] = deque()
        self._lent = LentMap(self._map, partial(_gone, self._freed, self._pid))

    def _map(self, nbytes: int) -> Bytes:
        return np.frombuffer(mmap.mmap(self._file, nbytes, prot=mmap.PROT_READ), np.uint8)

    def frames(self, address: int, lengths: Sequence[int]) -> list[memoryview]:
        """Return the frames of a block, whose place is free again when nothing refers to any of them.

        Raises:
            ValueError: they reach beyond the arena.
        """
        total = sum(map(aligned, lengths))
        if address % GRAIN or address < HEAD or address + total > self._size:
            raise ValueError(f"a block of {total} bytes at {address} in an arena of {self._size}")
        return self._lent.lend(address, self._size, lengths)

    def take_freed(self) -> list[int]:
        """Return the addresses of blocks that nothing refers to any more, once."""
        freed = self._freed
        return [freed.popleft() for _ in range(len(freed))]


def _gone(freed: deque[int], pid: int, address: int, _nbytes: int) -> None:
    if os.getpid() == pid:  # a forked child's end must not free what its parent uses
        freed.append(address)


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
