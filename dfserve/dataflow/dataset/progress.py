"""Owns how a long download shows that it goes on: a bar on a terminal, a line of the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger("dfserve.dataflow")

_EVERY = 10.0  # seconds between two lines of the log
_MB = 1e6  # bytes


class Progress:
    """How many bytes of a file are here."""

    def __init__(self, name: str, total: int, done: int) -> None:
        """Begin with ``done`` of the ``total`` bytes of the file ``name``."""
        self._name, self._total, self._done = name, total, done
        self._said = time.monotonic()
        self._bar = _bar(name, total, done)

    def add(self, count: int) -> None:
        """Count ``count`` more bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            log.info("%s: %.1f of %.1f MB", self._name, self._done / _MB, self._total / _MB)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(name: str, total: int, done: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:  # it comes with dfserve[producer]; a bar is no reason to fail
        return None
    return tqdm(total=total, initial=done, desc=name, unit="B", unit_scale=True)
