"""Owns what a pool is to the kernel: memory that has no name in any file system, found through /proc, of sealed size.

Others find it as long as a process that has it open lives. So nothing is left behind by a SIGKILL, and the size of
/dev/shm does not matter. Nobody can shorten it under a reader, whom that would kill.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from pathlib import Path

from dfserve.sharing.extents import GRAIN

NAME = "dfserve-pool"
PATH = re.compile(r"/proc/[1-9][0-9]*/fd/[0-9]+")
SEALS = "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_SEAL"
NONCE_BYTES = 16
HEAD = GRAIN  # bytes before the first place, of which the first are the nonce


def made(size: int) -> int:
    """Make memory of so many bytes, none of which is taken yet. Returns a descriptor.

    Raises:
        OSError: this system has no such memory.
        OverflowError: no file has so many bytes.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(f"{sys.platform} has no memory without a name")
    file = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _seals())
    except BaseException:
        os.close(file)
        raise
    return file


def opened(path: str) -> int:
    """Open what another process says is a pool, to read. Returns a descriptor.

    Raises:
        OSError: there is nothing at that path, or not for us: another container, another machine, another user.
        ValueError: what is there is something else.
    """
    # What a stranger says is opened only if it is memory of ours; looked at before, since opening some files acts.
    if not PATH.fullmatch(path) or not str(Path(path).readlink()).startswith(f"/memfd:{NAME}"):
        raise ValueError(f"a pool at {path[:100]!r}")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _seals() != _seals():  # reading what is cut off just then kills
            raise ValueError(f"the memory at {path} could be shortened")
    except BaseException:
        os.close(file)
        raise
    return file


def path_of(file: int) -> str:
    """Return where other processes find what this one has open."""
    return str(Path("/proc") / str(os.getpid()) / "fd" / str(file))


def _seals() -> int:
    return sum(getattr(fcntl, name) for name in SEALS)
