"""Owns a producer daemon's Prometheus metrics and its health page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfserve.errors import ConfigError
from dfserve.http import Health, Server, make_server
from dfserve.producer.supervisor import Supervisor

METRICS = {
    "dfserve_worker_datapoints_total": ("datapoints", "Datapoints that the worker has produced"),
    "dfserve_worker_bytes_total": ("nbytes", "Bytes of blocks that the worker has built"),
    "dfserve_worker_blocked_seconds_total": ("blocked_seconds", "Seconds that the worker waited for credit"),
    "dfserve_worker_passes_total": ("passes", "Passes that the worker has completed"),
    "dfserve_worker_restarts_total": ("restarts", "How often the worker died and was started again"),
}


def serve_producer_metrics(supervisor: Supervisor, port: int, host: str = "") -> Server:
    """Bind a server for /metrics, /livez and /readyz; the supervisor gives it its turns.

    Raises:
        AddressInUse: the port is taken.
        ConfigError: prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.registry import Collector
    except ImportError:
        raise ConfigError("metrics need prometheus-client: pip install 'dfserve[producer]'") from None

    class BoardCollector(Collector):
        def collect(self) -> Iterator[Any]:
            counters = {slot.name: supervisor.board.read(slot.number) for slot in supervisor.slots}
            for name, (field, help_text) in METRICS.items():
                family = CounterMetricFamily(name, help_text, labels=["worker"])
                for worker, values in counters.items():
                    family.add_metric([worker], getattr(values, field))
                yield family
            yield GaugeMetricFamily("dfserve_workers", "Worker processes that run", value=len(supervisor.running))

    registry = CollectorRegistry()
    registry.register(BoardCollector())

    def ready() -> str | None:
        return None if supervisor.running else "no worker runs"

    return make_server(host, port, Health(lambda: generate_latest(registry), lambda: None, ready))
