"""Owns the embedded broker's process: set up by its input's first line, alive while its parent holds that open.

Its parent waits for it, and so do producers that were there before. So it binds with the little that this needs, and
loads the rest while they connect.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfserve.broker.config import BrokerConfig
from dfserve.broker.front import Front
from dfserve.errors import DfserveError
from dfserve.logs import set_up_logging
from dfserve.memory import keep_large_blocks

if TYPE_CHECKING:
    from dfserve.broker.server import Broker

SEE_OUT = 3.0  # seconds for consumers elsewhere to hear of the end; its parent waits for longer before it kills it
PERIOD = 0.1  # seconds between looks at the parent: a killed trainer's address is free after it


class Lifeline:
    """Tells when the parent is gone: its end of the pipe closed, or we were handed to another parent.

    Both, because a forked child of the trainer may hold a copy of the pipe's end and outlive it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._parent = os.getppid()
        self._cut = False
        self._due = 0.0

    def gone(self) -> bool:
        """Look, without waiting, a few times a second."""
        now = time.monotonic()
        if self._cut or now < self._due:
            return self._cut
        self._due = now + PERIOD
        if not self._cut and select.select([self.fd], [], [], 0)[0]:
            os.read(self.fd, 4096)  # the end of the pipe, or a word: either way we shall go
            self._cut = True
        self._cut |= os.getppid() != self._parent
        return self._cut


def _first_line(fd: int) -> bytes:
    """Read a line and nothing beyond it: what follows must stay in the pipe."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(fd, 1)):
        line += byte
    return line


def _say(answer: dict[str, Any]) -> None:
    """Tell the parent, in one line. One that is gone does not hear it; the lifeline tells us so."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")  # unbuffered: nothing is left that could fail at our exit


def _bound(settings: dict[str, Any], lifeline: Lifeline) -> Broker:
    """Bind first, then load and make the broker."""
    config = BrokerConfig(**settings["config"])
    keys = Path(settings["keys"]) if settings.get("keys") is not None else None
    with contextlib.ExitStack() as undo:
        front = undo.enter_context(Front(settings["binds"], config.limits, keys))
        # Here, because numpy alone takes longer to load than all that was loaded above.
        from dfserve.broker.server import Broker

        broker = Broker(front, config, until=lifeline.gone, wake=lifeline.fd)
        undo.pop_all()
    return broker


def main() -> int:
    """Run until the parent is gone. Says on standard output, in one line of JSON, where it is bound or what failed."""
    gc.disable()  # while modules are loaded, of which it would take a sixth of the time and find nothing
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle; we follow it by the pipe
    with contextlib.suppress(KeyError, ValueError):  # no level of that name: the usual one
        set_up_logging(os.environ["DFSERVE_LOG"])
    line = _first_line(0)
    if not line.endswith(b"\n"):
        return 0  # the parent was killed before it said what to do
    settings: dict[str, Any] = json.loads(line)
    lifeline = Lifeline(0)
    keep_large_blocks()
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(_bound(settings, lifeline))
            gc.freeze()  # modules are no garbage: nor need they be looked through again and again
            gc.enable()
            if settings["metrics_port"] is not None:
                from dfserve.broker.http import serve_metrics  # here, because only then is prometheus_client needed

                stack.enter_context(serve_metrics(broker, settings["metrics_port"]))
        except DfserveError as error:
            _say({"error": type(error).__name__, "text": str(error)})
            return 1
        _say({"endpoints": broker.endpoints})
        broker.run()
        broker.see_out(SEE_OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
