"""Owns the memory in which a worker builds its blocks for a broker on its machine: made, offered, found, read.

It has no name in any file system: others find it through /proc as long as a process that has it open lives. So nothing
is left behind by a SIGKILL, and the size of /dev/shm does not matter. Its size is sealed: nobody can shorten it under a
reader, whom that would kill.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfserve.sharing.places import Places
from dfserve.sharing.view import HEAD, NONCE_BYTES, View
from dfserve.wire.placement import SMALLEST, Span

log = logging.getLogger("dfserve.pool")

NAME = "dfserve-pool"
PATH = re.compile(r"/proc/[1-9][0-9]*/fd/[0-9]+")
SEALS = "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_SEAL"


class Pool(Places):
    """The worker's side. May be used by several threads.

    Args:
        size: bytes at most; memory is taken as it is used, the lowest first.

    Raises:
        OSError: this system has no such memory.

    Attributes:
        path: where processes of this machine and this user find it.
    """

    def __init__(self, size: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError(f"{sys.platform} has no memory without a name")
        self.size = size // HEAD * HEAD
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(file, self.size)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _seals())
            super().__init__(file, self.size, self.nonce)
        except BaseException:
            os.close(file)
            raise
        self.path = path_of(file)

    def spans(self, frames: Sequence[Any]) -> list[Span | None]:
        """Return where each of a block's frames lies in this memory; None for one that does not, or is small."""
        return [self._span(frame) for frame in frames]

    def _span(self, frame: Any) -> Span | None:
        if not isinstance(frame, memoryview) or len(frame) < SMALLEST:
            return None
        address = self.address_of(frame)
        return None if address is None else (address, len(frame))

    def _out_of_memory(self) -> None:
        log.warning(
            "the system has no more than %d MiB for the memory of blocks that processes of this machine share; blocks"
            " beyond that go through the socket, which is slower", self.full >> 20
        )  # fmt: skip


class PoolView(View):
    """A reader's side.

    Args:
        path, size, nonce: as the one that offers it says.
        buys: as for `LentMap`.

    Raises:
        OSError: there is nothing at that path, or not for us: another container, another machine, another user.
        ValueError: what is there is something else.
    """

    def __init__(self, path: str, size: int, nonce: bytes, *, buys: bool = True) -> None:
        # What a stranger says is opened only if it is memory of ours; looked at before, since opening some files acts.
        if not PATH.fullmatch(path) or not str(Path(path).readlink()).startswith(f"/memfd:{NAME}"):
            raise ValueError(f"a pool at {path[:100]!r}")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & _seals() == _seals()
            if not sealed:  # and reading what is cut off just then would kill us
                raise ValueError(f"the memory at {path} could be shortened")
        except BaseException:
            os.close(file)
            raise
        super().__init__(file, size, nonce, buys=buys)
        self.size = size
        self.nonce = nonce

    @property
    def path(self) -> str:
        """Where others find it as long as this process lives, whatever becomes of the worker."""
        return path_of(self.file)


def path_of(file: int) -> str:
    """Return where other processes find what this one has open."""
    return str(Path("/proc") / str(os.getpid()) / "fd" / str(file))


def _seals() -> int:
    return sum(getattr(fcntl, name) for name in SEALS)
