"""Owns the demo's child processes: started with a clean environment, watched, and ended whatever happens."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from dfserve.errors import DfserveError

END = 5.0  # seconds for children to end after SIGTERM before they are killed
TURN = 0.02  # seconds between two looks at whether they have
LOG_LINES = 12  # of a failed child's log in the error
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Processes:
    """``dfserve`` commands in processes of their own. A context manager: none of them outlives it.

    Args:
        folder: for their logs, one file each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start ``dfserve ARGUMENTS``; in metrics and errors it is called ``name``."""
        # The user's own DFSERVE_ variables are options of these commands too, and are not meant for the demo.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DFSERVE_")}
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603  # our own command
                [sys.executable, "-m", "dfserve.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "DFSERVE_NAME": name},
                start_new_session=True,  # the terminal's Ctrl-C is for us; we end them in order
                preexec_fn=_end_with_parent,  # one call into libc, bound before any thread exists
            )

    def check(self) -> None:
        """Raise if one of them has failed, with the end of its log.

        Raises:
            DfserveError: a child ended with an exit code other than 0.
        """
        for name, process in self._running.items():
            if process.poll():
                text = self._log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise DfserveError(f"{name} ended with status {process.returncode}:\n" + "\n".join(text))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_exc: object) -> None:
        """End all: the last started first, so that producers need not wait for a broker that is gone."""
        for process in reversed(self._running.values()):
            process.terminate()
        deadline = time.monotonic() + END
        for process in reversed(self._running.values()):
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(TURN)
            process.kill()
            process.wait()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the demo is gone, even by SIGKILL."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_ports(count: int) -> list[int]:
    """Return tcp ports of 127.0.0.1 that nobody has at this moment, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
