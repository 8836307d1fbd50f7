"""Owns the thread that puts the ledger on disk, so that the broker's loop never waits for a disk.

States that are submitted while one is being written replace one another, and the newest goes next: under load many
claims share one flush, at rest a claim waits for its own flush only.
"""

from __future__ import annotations

import contextlib
import os
import threading

from dfserve.broker.ledger_file import LedgerFile


class Committer:
    """Writes what is submitted to a ledger, the newest state at a time, and tells by a descriptor how far it is.

    The broker's loop calls everything here, and nothing waits but ``close``.
    """

    def __init__(self, ledger: LedgerFile) -> None:
        """Start the thread.

        Args:
            ledger: an open ledger; from now on the thread's own, and closed at its end.
        """
        self._ledger = ledger
        self._durable = ledger.sequence
        self._submitted = ledger.sequence
        self._error: Exception | None = None
        self._pending: tuple[int, bytes] | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # A daemon: a disk that never answers must not keep the broker from ending.
        self._thread = threading.Thread(target=self._run, name="dfserve-ledger", daemon=True)
        self._thread.start()

    @property
    def durable(self) -> int:
        """The highest sequence number that is on disk; whatever it covers may be confirmed."""
        return self._durable

    @property
    def error(self) -> Exception | None:
        """Why nothing more gets on disk: a LedgerError in general. None as long as all is well."""
        return self._error

    def submit(self, sequence: int, payload: bytes) -> None:
        """Have a state written. Never waits; after an error it does nothing.

        Args:
            sequence: greater than every one before, in the ledger and here.
            payload: the whole state; takes the place of one that is not being written yet.
        """
        with self._changed:
            if sequence <= self._submitted:
                raise ValueError(f"state {sequence} does not come after state {self._submitted}")
            if self._closing:
                raise ValueError(f"state {sequence} comes after close()")
            self._submitted = sequence
            self._pending = (sequence, payload)
            self._changed.notify()

    def fileno(self) -> int:
        """Return a descriptor that is readable when ``durable`` or ``error`` changed since ``acknowledge``."""
        return self._wake

    def acknowledge(self) -> None:
        """Make the descriptor unreadable. Look at ``durable`` and ``error`` afterwards, not before."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def close(self, patience: float) -> bool:
        """Write what is pending and end the thread, which closes the ledger. May be called again.

        Args:
            patience: seconds to wait for the disk at most.

        Returns:
            Whether all that was submitted is on disk.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience)
        if not self._thread.is_alive() and self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
        return self._durable == self._submitted

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._ledger.write(*work)
                self._durable = work[0]
                os.eventfd_write(self._wake, 1)
        except Exception as error:  # noqa: BLE001  # the loop must learn of it, whatever it is
            self._error = error
            os.eventfd_write(self._wake, 1)
        finally:
            self._ledger.close()

    def _next(self) -> tuple[int, bytes] | None:
        """Wait for work; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending is not None or self._closing)
            work, self._pending = self._pending, None
            return work
