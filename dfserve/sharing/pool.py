"""Owns the memory in which one process builds blocks that others on its machine read."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from typing import Any

from dfserve.sharing.places import Places
from dfserve.sharing.pool_file import HEAD, NONCE_BYTES, made, path_of
from dfserve.wire.placement import SMALLEST, Span

log = logging.getLogger("dfserve.pool")


class Pool(Places):
    """The side of the one that fills it. May be used by several threads.

    Args:
        size: bytes at most; memory is taken as it is used, the lowest first.

    Raises:
        OSError: this system has no such memory.
        OverflowError: no file has so many bytes.

    Attributes:
        path: where processes of this machine and this user find it.
    """

    def __init__(self, size: int) -> None:
        self.size = size // HEAD * HEAD
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        file = made(self.size)
        try:
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
