"""Owns `dfserve broker`: a standalone broker until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from types import FrameType

import click

from dfserve import endpoints
from dfserve.cli.types import DURATION, SIZE
from dfserve.errors import ConfigError

log = logging.getLogger("dfserve.broker")


class Stop:
    """Remembers a signal: the first asks for an end, the second forces it."""

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._remember)

    def _remember(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signum != 0


@click.command()
@click.option(
    "--bind",
    "binds",
    multiple=True,
    required=True,
    metavar="ADDR",
    help="Address for producers and consumers: tcp://HOST:PORT, ipc:///PATH or ipc://@NAME. May be given several times "
    "(in the variable: separated by spaces). [env: DFSERVE_BIND]",
    envvar="DFSERVE_BIND",
)
@click.option(
    "--queue-bytes",
    type=SIZE,
    default="1GiB",
    show_default=True,
    envvar="DFSERVE_QUEUE_BYTES",
    help="Budget for everything that is granted, queued or handed out and not consumed. The broker's memory "
    "stays near it. [env: DFSERVE_QUEUE_BYTES]",
)
@click.option(
    "--max-frame",
    type=SIZE,
    default="256MiB",
    show_default=True,
    envvar="DFSERVE_MAX_FRAME",
    help="Largest array that is taken in. [env: DFSERVE_MAX_FRAME]",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    envvar="DFSERVE_METRICS_PORT",
    help="Serve /metrics, /livez and /readyz on this port. [env: DFSERVE_METRICS_PORT]",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    envvar="DFSERVE_KEYS",
    help="Encrypt tcp, and admit only clients whose keys are in this folder; `dfserve keys` makes it. "
    "[env: DFSERVE_KEYS]",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="DFSERVE_INSECURE",
    help="Allow an address that other hosts can reach without --keys: anybody who reaches it can send and receive. "
    "For private networks. [env: DFSERVE_INSECURE]",
)
@click.option(
    "--liveness",
    type=DURATION,
    default="10s",
    show_default=True,
    envvar="DFSERVE_LIVENESS",
    help="How long a client without a connection may come back before it is given up. [env: DFSERVE_LIVENESS]",
)
@click.option(
    "--grace",
    type=DURATION,
    default="10s",
    show_default=True,
    envvar="DFSERVE_GRACE",
    help="How long consumers may take what is queued after SIGTERM. A second signal ends at once. [env: DFSERVE_GRACE]",
)
@click.option(
    "--lease-time",
    type=DURATION,
    default="60s",
    show_default=True,
    envvar="DFSERVE_LEASE_TIME",
    help="Epochs mode: a worker that begins no item for so long is late, and others make its splits. Longer than the "
    "slowest item takes. [env: DFSERVE_LEASE_TIME]",
)
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DFSERVE_LEDGER",
    help="Epochs mode: the file that keeps what was claimed, so that a broker that is killed goes on where it was. Its "
    "folder must be there. Default: a file in ~/.local/state/dfserve named after the first address. "
    "[env: DFSERVE_LEDGER]",
)
def broker(
    binds: tuple[str, ...],
    queue_bytes: int,
    max_frame: int,
    metrics_port: int | None,
    keys: Path | None,
    insecure: bool,
    liveness: float,
    grace: float,
    lease_time: float,
    ledger: Path | None,
) -> None:
    """Run a broker on the training machine.

    Producers connect to it with `dfserve produce ... --to ADDR`, trainers with RemoteDataZMQ(ADDR, bind=False). One
    port serves both. A trainer that hosts its own broker (RemoteDataZMQ(ADDR)) needs none.

    \b
    Examples:
      dfserve broker --bind tcp://127.0.0.1:8877
      dfserve keys keys data-1 trainer
      dfserve broker --bind tcp://0.0.0.0:8877 --bind ipc:///tmp/dfserve --keys keys --metrics-port 9100
    """
    from dfserve.broker.config import BrokerConfig
    from dfserve.broker.server import Broker
    from dfserve.memory import keep_large_blocks

    for address in binds:
        endpoints.require_safe(endpoints.parse(address), insecure, locked=keys is not None)
    if ledger is not None and not ledger.parent.is_dir():  # which a slip of the pen is likelier than a wish
        raise ConfigError(
            f"--ledger {ledger}: there is no folder {ledger.parent}; make it, or see whether it is mounted"
        )
    config = BrokerConfig(queue_bytes=queue_bytes, max_frame=max_frame, liveness=liveness, lease_time=lease_time)
    kept = ledger or _default_ledger(binds[0])
    keep_large_blocks()
    stop = Stop()
    with Broker(binds, config, until=stop.asked, ledger=kept, keys=keys) as serving, contextlib.ExitStack() as stack:
        if metrics_port is not None:
            from dfserve.broker.http import serve_metrics

            stack.enter_context(serve_metrics(serving, metrics_port))
        log.info("broker ready at %s", " and ".join(serving.endpoints))
        serving.run()
        log.info("stopping: consumers have %.0f s to take what is queued; a second signal ends at once", grace)
        if not serving.drain(grace):
            log.warning("%d bytes were queued and nobody took them within %.0f s", serving.core.budget.used, grace)
        log.info("broker stopped")


def _default_ledger(address: str) -> Path | None:
    """Return the file for an address; None where no later broker could find it, or none can be written."""
    from dfserve.broker.ledger_place import make_folder
    from dfserve.state_folder import ledger_path

    try:
        path = ledger_path(address)
        if path.exists():  # whatever is wrong with it is an error: it is never taken for none
            return path
        make_folder(path.parent)
        if os.access(path.parent, os.W_OK):
            return path
        why = f"{path.parent} cannot be written; name a file with --ledger"
    except OSError as error:
        why = f"{error.strerror}: {error.filename}; name a file with --ledger"
    except ConfigError as error:
        why = str(error)
    log.info("no ledger, so what was claimed in epochs mode is forgotten when this broker ends: %s", why)
    return None
