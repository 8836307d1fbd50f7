"""Owns the name of this machine, by which processes tell whether they could share memory."""

from __future__ import annotations

import contextlib
from pathlib import Path


def machine() -> str:
    """Return what names this machine until it starts again; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
