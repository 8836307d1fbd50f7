"""Owns the broker's Prometheus metrics: their names, kinds, help and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from dfserve.broker.core import Core
from dfserve.broker.metrics_values import samples


@dataclass(frozen=True)
class Metric:
    """One metric: its kind, what it means, its labels."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    help: str
    labels: tuple[str, ...] = ()


COUNTER, GAUGE = CounterMetricFamily, GaugeMetricFamily

METRICS: dict[str, Metric] = {
    "dfserve_queue_items": Metric(GAUGE, "Datapoints that wait to be sent to a consumer, by group", ("group",)),
    "dfserve_queue_bytes": Metric(GAUGE, "Bytes held: queued, or handed out and not acknowledged"),
    "dfserve_queue_granted_bytes": Metric(GAUGE, "Bytes that workers may send and that have not arrived"),
    "dfserve_queue_capacity_bytes": Metric(GAUGE, "The budget, --queue-bytes"),
    "dfserve_queue_occupancy_ratio": Metric(
        GAUGE, "Held bytes / budget: near 1 the trainer is the bottleneck, near 0 the pipelines are"
    ),
    "dfserve_datapoints_received_total": Metric(COUNTER, "Datapoints received", ("producer",)),
    "dfserve_datapoints_delivered_total": Metric(COUNTER, "Datapoints that consumers have handed out", ("group",)),
    "dfserve_datapoints_skipped_total": Metric(COUNTER, "Datapoints that a slow or deserted group missed", ("group",)),
    "dfserve_received_bytes_total": Metric(COUNTER, "Bytes of blocks received", ("producer",)),
    "dfserve_received_wire_bytes_total": Metric(
        COUNTER, "Bytes that blocks took on the network: fewer than theirs if they were compressed", ("producer",)
    ),
    "dfserve_delivered_bytes_total": Metric(COUNTER, "Bytes of blocks that consumers have handed out", ("group",)),
    "dfserve_consumer_wait_seconds_total": Metric(COUNTER, "Seconds that trainers waited for data", ("group",)),
    "dfserve_producer_blocked_seconds_total": Metric(COUNTER, "Seconds that workers waited for credit", ("producer",)),
    "dfserve_producer_restarts": Metric(GAUGE, "How often this worker has died and was restarted", ("producer",)),
    "dfserve_producers": Metric(GAUGE, "Workers that are connected"),
    "dfserve_consumers": Metric(GAUGE, "Consumers that are connected"),
    "dfserve_producer_last_seen_timestamp_seconds": Metric(
        GAUGE, "When the worker last said something, in seconds since 1970", ("producer",)
    ),
    "dfserve_blocks_redelivered_total": Metric(COUNTER, "Blocks that a dead consumer held and another received"),
    "dfserve_datapoints_in_doubt_total": Metric(
        COUNTER, "Datapoints of redelivered blocks: the dead consumer may have seen them"
    ),
    "dfserve_blocks_duplicate_total": Metric(COUNTER, "Blocks that were sent again after a reconnect and dropped"),
    "dfserve_blocks_uncertain_total": Metric(
        COUNTER, "Blocks that an earlier broker had taken when it died: they may be lost, or seen already"
    ),
    "dfserve_bad_messages_total": Metric(COUNTER, "Messages that break the protocol", ("reason",)),
    "dfserve_refused_connections_total": Metric(COUNTER, "Connections turned away before any message", ("reason",)),
    "dfserve_errors_total": Metric(COUNTER, "Pipelines that raised, workers and consumers that were lost", ("kind",)),
    "dfserve_epoch": Metric(GAUGE, "The epoch that a group is in, the slowest rank's", ("pipeline", "group")),
    "dfserve_epoch_items_total": Metric(COUNTER, "Items of complete epochs, by what became of them", ("outcome",)),
    "dfserve_split_leases_expired_total": Metric(COUNTER, "Leases whose worker did nothing for too long"),
    "dfserve_blocks_fenced_total": Metric(COUNTER, "Blocks that came after their lease had ended, and changed nothing"),
    "dfserve_items_quarantined_total": Metric(COUNTER, "Items that were given up"),
    "dfserve_build_info": Metric(GAUGE, "Always 1; the versions are in the labels", ("version", "python", "libzmq")),
}


class BrokerCollector(Collector):
    """Reads one broker's state, see `metrics_values`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Any]:
        """Yield all metric families."""
        values = samples(self._core)
        for name, metric in METRICS.items():
            family = metric.kind(name, metric.help, labels=metric.labels)
            for labels, value in values[name]:
                family.add_metric(labels, value)
            yield family


def registry_of(core: Core) -> CollectorRegistry:
    """Make a registry that holds one broker's metrics, and nothing else: importing this module has no side effect."""
    registry = CollectorRegistry()
    registry.register(BrokerCollector(core))
    return registry
