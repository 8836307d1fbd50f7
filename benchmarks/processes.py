"""Owns the processes of a benchmark: started afresh for each figure, heard, and ended with all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.rounds import Figures

GRACE = 60.0  # seconds beyond the measured ones for processes to start, warm up and end
_TOLD = 4000  # characters of its log, the last ones, that the error for a process has


class PeerFailed(RuntimeError):  # noqa: N818  # says what happened
    """A process of a benchmark ended with an error; the message has what it printed."""


@contextmanager
def logs() -> Iterator[IO[str]]:
    """Hand out a file for what processes print; PeerFailed that is raised inside gets it added."""
    with tempfile.TemporaryFile("w+") as log:
        try:
            yield log
        except PeerFailed as error:
            log.seek(0)
            told = log.read()[-_TOLD:]
            raise PeerFailed(f"{error}:\n{told}" if told else str(error)) from None


@contextmanager
def started(
    module: str, *args: Any, log: IO[str], python: str | Path | Sequence[str] = sys.executable, **pipes: Any
) -> Iterator[Any]:
    """Run ``python -m module args`` as long as the ``with`` block lasts; what it started ends with it.

    ``python`` may be a command that ends with an interpreter.
    """
    words = [str(python)] if isinstance(python, str | Path) else python
    command = [*words, "-m", module, *map(str, args)]
    # A session of its own: the rivals' workers outlive a parent that is killed. So do their sockets and files.
    options = {"text": True, "stderr": log, "stdout": log, "start_new_session": True, **pipes}
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(command, env={**os.environ, "TMPDIR": folder}, **options) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def figures_of(process: Any, seconds: float) -> Figures:
    """Return what a process prints last, for which it measures so many seconds.

    Raises:
        PeerFailed: it printed nothing, or not in time.
    """
    try:
        output, _ = process.communicate(timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{' '.join(process.args)} said nothing in {seconds + GRACE:.0f} s") from None
    if not output:
        raise PeerFailed(f"{' '.join(process.args)} measured nothing")
    figures: Figures = json.loads(output.splitlines()[-1])
    return figures


def answer(module: str, *args: Any, seconds: float) -> Figures:
    """Run ``python -m module args``, which prints its figures, to its end; the errors are those of ``figures_of``."""
    with logs() as log, started(module, *args, log=log, stdout=subprocess.PIPE) as process:
        return figures_of(process, seconds)


def free_port() -> int:
    """Return a tcp port of this machine that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
