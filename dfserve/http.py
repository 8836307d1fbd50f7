"""Owns the small HTTP server for /metrics, /livez and /readyz of a broker or a producer."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from dfserve.errors import AddressInUse, ConfigError

TIMEOUT = 5.0  # seconds for one request: a client that says nothing must not hold the server
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """What the server answers with.

    Args:
        metrics: returns the metrics page, in Prometheus' text format.
        alive: returns None, or what is wrong (then /livez answers 503 and a supervisor should restart us).
        ready: likewise for /readyz: whether traffic may be sent here.
    """

    def __init__(
        self, metrics: Callable[[], bytes], alive: Callable[[], str | None], ready: Callable[[], str | None]
    ) -> None:
        self.metrics, self.alive, self.ready = metrics, alive, ready

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return (status, content type, body) for a path."""
        path = path.partition("?")[0]
        if path == "/metrics":
            return 200, METRICS_TYPE, self.metrics()
        probes = {"/livez": self.alive, "/readyz": self.ready}
        if path not in probes:
            return 404, "text/plain", b"there are /metrics, /livez and /readyz\n"
        wrong = probes[path]()
        return (200, "text/plain", b"ok\n") if wrong is None else (503, "text/plain", wrong.encode() + b"\n")


def make_server(host: str, port: int, health: Health) -> HTTPServer:
    """Bind an HTTP server. It handles one request after another; run it in a thread or with ``handle_request``.

    Raises:
        AddressInUse: the port is taken.
        ConfigError: it is no port.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:  # http.server's name
            status, content_type, body = health.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # http.server's name
            """Say nothing: a scrape every few seconds is not news."""

    try:
        return HTTPServer((host, port), Handler)
    except OverflowError:
        raise ConfigError(f"metrics port {port} is not a number from 0 (any free port) to 65535") from None
    except OSError as error:
        raise AddressInUse(
            f"metrics port {port} cannot be bound: {error.strerror}; give another --metrics-port (metrics_port=)"
        ) from None
