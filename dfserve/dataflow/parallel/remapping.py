"""Owns how a forked child makes shared memory its own, where it lies: one call of the C library."""

from __future__ import annotations

import ctypes
import mmap
import sys

_MAP_FIXED = 0x10  # from linux/mman.h; Python's mmap module has no name for it
_FAILED = ctypes.c_void_p(-1).value


def remap_privately(address: int, nbytes: int, fd: int) -> None:
    """Replace the mapping at ``address`` by a private one of the same file: pages are copied when they are written to.

    Does nothing where the system is not Linux, whose other start methods than fork are the usual ones.

    Raises:
        OSError: the system has no memory for the map.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = libc.mmap(address, nbytes, protection, mmap.MAP_PRIVATE | _MAP_FIXED, fd, 0)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), "a forked child cannot map the memory that it shares with its parent")
