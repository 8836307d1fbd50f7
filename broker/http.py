"""Owns serving a broker's metrics and health from a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from dfserve.broker.server import Broker
from dfserve.errors import ConfigError
from dfserve.http import Health, Server, make_server

log = logging.getLogger("dfserve.broker")

TURN = 0.2  # seconds between looks whether the broker ends
PATIENCE = 2.0  # seconds for a page that is being made when it ends
STALLED = 10.0  # seconds without a turn of the poll loop; it turns five times a second when nothing happens


@contextlib.contextmanager
def serve_metrics(broker: Broker, port: int, host: str = "") -> Iterator[Server]:
    """Serve /metrics, /livez and /readyz on a port (0: any free one, see the server's ``port``) meanwhile."""
    try:
        from prometheus_client import generate_latest

        from dfserve.broker.metrics import registry_of
    except ImportError:
        raise ConfigError("metrics need prometheus-client: pip install 'dfserve[broker]'") from None
    registry = registry_of(broker.core)

    def alive() -> str | None:
        age = time.monotonic() - broker.last_turn
        return None if age < STALLED else f"the poll loop has not turned for {age:.0f} s"

    def ready() -> str | None:
        return alive() if broker.core.accepting else "draining"

    server = make_server(host, port, Health(lambda: generate_latest(registry), alive, ready))
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(server, stop), name="dfserve-metrics", daemon=True)
    thread.start()
    log.info("metrics at http://%s:%d/metrics", host or "0.0.0.0", server.port)  # noqa: S104  # a text
    try:
        yield server
    finally:
        stop.set()
        thread.join(PATIENCE)


def _serve(server: Server, stop: threading.Event) -> None:
    with server:
        while not stop.is_set():
            server.turn(TURN)
