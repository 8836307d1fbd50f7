"""Owns the note, within this package, that one try to fetch an item failed."""

from __future__ import annotations


class Failed(Exception):  # noqa: N818  # never leaves the package: it becomes part of a DownloadError
    """One try to fetch an item failed; the text says why.

    Attributes:
        again: another try may go better.
        wait: seconds that the server asked to wait before it; 0 if it did not.
    """

    def __init__(self, why: str, *, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(why)
        self.again = again
        self.wait = wait
