"""Owns the broker that lives as a child process of whoever binds an address: started, watched and ended with it.

A child process and not a thread, because a training step that holds the GIL must not stall it. It ends when its
parent's end of a pipe closes, so that a trainer killed with SIGKILL leaves its address free.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dfserve
from dfserve import errors
from dfserve.errors import BrokerLost

START = 30.0  # seconds for the child to say where it is bound; it takes a quarter of one on an idle machine
# numpy's OpenBLAS starts a thread for every core when it is loaded; a broker multiplies nothing.
NO_ALGEBRA = {"OPENBLAS_NUM_THREADS": "1"}
STOP = 5.0  # seconds for the child to end before it is killed


def private_address() -> str:
    """Return a fresh ipc address that only its creator knows: abstract on Linux, so that no file is left behind."""
    if os.uname().sysname == "Linux":
        return f"ipc://@dfserve-{secrets.token_hex(8)}"
    import tempfile  # here, because it takes as long to load as half of this package

    return f"ipc://{tempfile.mkdtemp(prefix='dfserve-')}/broker"


class EmbeddedBroker:
    """A broker in a child process. A context manager.

    Args:
        binds: addresses for clients, as for `Broker`.
        config: keyword arguments of `BrokerConfig`.
        metrics_port: port for /metrics, or None.
        keys: the folder of keys that are asked for on tcp, or None.
        meanwhile: is called once while the child starts; e.g. to load what its parent needs next.

    Attributes:
        address: a private address for the process that started it.
        endpoints: what ``binds`` became, with ports resolved.

    Raises:
        AddressInUse, EndpointError, KeysError, ConfigError: as the broker raised them.
        BrokerLost: the child did not start.
    """

    def __init__(
        self,
        binds: Sequence[str],
        config: dict[str, Any],
        metrics_port: int | None = None,
        keys: Path | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.address = private_address()
        settings = {
            "binds": [self.address, *binds],
            "config": config,
            "metrics_port": metrics_port,
            "keys": None if keys is None else str(keys),
        }
        self._owner = os.getpid()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dfserve.broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _path_of_dfserve(), **NO_ALGEBRA},
            start_new_session=True,  # the terminal's Ctrl-C is for the trainer
        )
        try:
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(settings).encode() + b"\n")
            self._child.stdin.flush()
            meanwhile()
            self.endpoints: list[str] = self._await_ready()[1:]
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def _await_ready(self) -> list[str]:
        assert self._child.stdout is not None
        ready = select.poll()  # not select(), which takes no file above 1,023: a trainer may have as many open
        ready.register(self._child.stdout, select.POLLIN)
        if not ready.poll(1000 * START):
            raise BrokerLost(f"the embedded broker (pid {self.pid}) did not start within {START:.0f} s")
        line = self._child.stdout.readline()
        if not line:
            raise BrokerLost(f"the embedded broker (pid {self.pid}) ended at once, with status {self._child.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["text"])
        endpoints: list[str] = answer["endpoints"]
        return endpoints

    def check(self) -> None:
        """Raise BrokerLost if the child has ended."""
        if os.getpid() == self._owner and (status := self._child.poll()) is not None:
            raise BrokerLost(
                f"the embedded broker (pid {self.pid}) ended with status {status}; what it held is lost. "
                "Make a new RemoteDataZMQ; producers will connect to it again"
            )

    def close(self) -> None:
        """End the child: closing its input is the signal. Safe to call twice, and in a forked child (does nothing)."""
        if os.getpid() != self._owner:
            return
        if self._child.stdin is not None and not self._child.stdin.closed:
            with contextlib.suppress(OSError):  # a forked child of ours may hold the pipe open: say it in a word too
                os.write(self._child.stdin.fileno(), b"\n")
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._child.wait(STOP)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _path_of_dfserve() -> str:
    """Return a PYTHONPATH with which the child finds the very dfserve that is running here."""
    here = str(Path(dfserve.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return here if not inherited else os.pathsep.join([here, inherited])
