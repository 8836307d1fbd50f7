"""Owns reading the value of every metric from a broker's core, in any thread.

The HTTP server's thread reads while the broker's own thread goes on. Each container is copied in one step (list() or
copy(), which the GIL makes atomic) before it is looked into, so a scrape sees each number as it
was at some moment of it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence

import zmq

from dfserve.broker.core import Core
from dfserve.broker.epoch_report import OUTCOMES
from dfserve.version import __version__

Sample = tuple[tuple[str, ...], float]  # label values, value

# What can be counted is there from the start, as 0: Prometheus sees no increase where a series begins with 1.
ERRORS = ("pipeline", "worker_lost", "consumer_lost")
BAD = ("magic", "version", "kind", "frames", "limits", "body", "dtype", "shape", "credit")
REFUSED = ("no_key", "unknown_key", "wrong_broker_key", "unexpected_key", "broken_keys", "broken_off")


def samples(core: Core) -> dict[str, list[Sample]]:
    """Read the value of every metric."""
    tally = core.tally
    producers, groups = sorted(tally.producers.copy().items()), sorted(tally.groups.copy().items())
    values: dict[str, list[Sample]] = {
        "dfserve_datapoints_received_total": [((n,), t.datapoints) for n, t in producers],
        "dfserve_received_bytes_total": [((n,), t.nbytes) for n, t in producers],
        "dfserve_received_wire_bytes_total": [((n,), t.on_wire) for n, t in producers],
        "dfserve_producer_blocked_seconds_total": [((n,), t.blocked_seconds) for n, t in producers],
        "dfserve_producer_restarts": [((n,), t.restarts) for n, t in producers],
        "dfserve_producer_last_seen_timestamp_seconds": [((n,), t.last_seen) for n, t in producers],
        "dfserve_datapoints_delivered_total": [((n,), t.datapoints) for n, t in groups],
        "dfserve_datapoints_skipped_total": [((n,), t.skipped) for n, t in groups],
        "dfserve_delivered_bytes_total": [((n,), t.nbytes) for n, t in groups],
        "dfserve_consumer_wait_seconds_total": [((n,), t.waited_seconds) for n, t in groups],
        "dfserve_blocks_redelivered_total": [((), tally.redelivered)],
        "dfserve_datapoints_in_doubt_total": [((), tally.in_doubt)],
        "dfserve_blocks_duplicate_total": [((), tally.duplicate)],
        "dfserve_blocks_uncertain_total": [((), tally.uncertain)],
        "dfserve_bad_messages_total": _labelled(tally.bad, BAD),
        "dfserve_refused_connections_total": _labelled(tally.refused, REFUSED),
        "dfserve_errors_total": _labelled(tally.errors, ERRORS),
        "dfserve_epoch_items_total": _labelled(tally.epoch_items, OUTCOMES),
        "dfserve_split_leases_expired_total": [((), tally.expired)],
        "dfserve_blocks_fenced_total": [((), tally.fenced)],
        "dfserve_items_quarantined_total": [((), tally.quarantined)],
        "dfserve_build_info": [((__version__, platform.python_version(), zmq.zmq_version()), 1)],
    }
    return values | _gauges(core)


def _labelled(counter: Counter[str], known: Sequence[str]) -> list[Sample]:
    return [((label,), n) for label, n in (dict.fromkeys(known, 0) | counter.copy()).items()]


def _gauges(core: Core) -> dict[str, list[Sample]]:
    jobs = list(core.jobs.values())
    epochs = list(core.epochs.jobs.values())
    in_epochs, granted = (
        sum(job.production.held_bytes for job in epochs),
        sum(job.production.leased_bytes for job in epochs),
    )
    streamed = sum(job.queued_bytes for job in jobs)
    held, capacity = streamed + in_epochs, core.config.queue_bytes
    usable = sum(job.production.budget.total for job in epochs)
    if any(job.groups or job.queued_bytes for job in jobs) or not epochs:
        usable += core.budget.total
    peers = list(core.peers.values())
    waiting: dict[str, float] = {}
    for job in jobs:
        for name, group in job.groups.copy().items():
            if name in core.tally.groups:  # else it has long been deserted, and its other labels are gone too
                waiting[name] = waiting.get(name, 0) + group.queued()
    for each in epochs:
        waiting[each.group] = waiting.get(each.group, 0) + each.queued()
    return {
        "dfserve_epoch": [((job.pipeline, job.group), job.epoch) for job in epochs if job.epoch is not None],
        "dfserve_queue_items": [((name,), count) for name, count in sorted(waiting.items())],
        "dfserve_queue_bytes": [((), held)],
        "dfserve_queue_granted_bytes": [((), max(0, core.budget.used - streamed) + granted)],
        "dfserve_queue_capacity_bytes": [((), capacity)],
        "dfserve_queue_occupancy_ratio": [((), held / usable)],
        "dfserve_producers": [((), sum(peer.worker is not None and peer.worker.live for peer in peers))],
        "dfserve_consumers": [((), sum(peer.consumer is not None or peer.seat is not None for peer in peers))],
    }
