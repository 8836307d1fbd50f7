"""Owns how shared memory becomes a process's own, where it lies: two calls of the C library."""

from __future__ import annotations

import ctypes
import mmap

# From linux/mman.h; Python's mmap module has no names for them.
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_FAILED = ctypes.c_void_p(-1).value


def make_private(address: int, nbytes: int) -> None:
    """Replace mapped memory by a private copy at the same address, at once for whoever reads it in another thread.

    Args:
        address: of whole pages.
        nbytes: whole pages.

    Raises:
        OSError: the system has no memory for it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    copy = libc.mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if copy != _FAILED:
        ctypes.memmove(copy, address, nbytes)
        if libc.mremap(copy, nbytes, nbytes, _MREMAP_MAYMOVE | _MREMAP_FIXED, address) != _FAILED:
            return
    raise OSError(ctypes.get_errno(), f"no memory to copy {nbytes} bytes that a child would share")
