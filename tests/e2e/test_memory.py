"""Owns the test that memory stays bounded, at the broker and at producers, while a trainer takes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from dfserve import window

Start = Callable[..., Any]
SECONDS = float(os.environ.get("DFSERVE_TEST_SECONDS", "10"))  # how long producers push against a stopped trainer
MIB = 1 << 20
QUEUE = 256 * MIB
BOUND = QUEUE + 100 * MIB  # what is queued, which may all be one worker's: its memory, and the broker sees it there
TO_CONSUMER = window.CEILING_BYTES  # what is under way to one consumer lies in memory that it shares with the broker
PRODUCERS = 4
STEP = 0.05  # seconds between samples


def _rss(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _worker(producer: Any, until: Any) -> psutil.Process:
    return until(producer.children, "the worker to be forked")[0]


@pytest.mark.parametrize("nbytes", [38_535_168, 150_528])
def test_memory_stays_under_the_budget_while_four_producers_push_against_a_stopped_consumer(
    run_broker: Start, produce: Start, dfserve: Start, until: Any, nbytes: int
) -> None:
    broker = run_broker("--queue-bytes", "256MiB")
    consumer = dfserve("consume", broker.address, "--timeout", "10m")
    broker.wait_for("dfserve_consumers", 1)
    producers = [
        produce(broker.address, f"data-{number}", factory="batches", nbytes=nbytes) for number in range(PRODUCERS)
    ]
    broker.wait_for("dfserve_datapoints_delivered_total", 1)
    consumer.signal(signal.SIGSTOP)
    broker.wait_for("dfserve_queue_occupancy_ratio", 0.5)  # the producers push from here on

    processes = {"broker": psutil.Process(broker.program.pid)}
    processes |= {f"worker {n}": _worker(producer, until) for n, producer in enumerate(producers)}
    processes |= {f"supervisor {n}": psutil.Process(producer.pid) for n, producer in enumerate(producers)}
    peak = dict.fromkeys(processes, 0)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        peak = {name: max(peak[name], _rss(process)) for name, process in processes.items()}
        time.sleep(STEP)
    print({name: f"{nbytes / MIB:.0f} MiB" for name, nbytes in peak.items()}, f"over {SECONDS:.0f} s")

    assert peak.pop("broker") < BOUND + TO_CONSUMER + nbytes
    from_worker = max(window.WORKER_FLOOR_BYTES, window.FLOOR_BLOCKS * nbytes)  # made, and not granted yet
    for number in range(PRODUCERS):
        assert peak[f"worker {number}"] + peak[f"supervisor {number}"] < BOUND + from_worker

    delivered = broker.total("dfserve_delivered_bytes_total")
    consumer.signal(signal.SIGCONT)
    broker.wait_for("dfserve_delivered_bytes_total", delivered + 3 * QUEUE)  # what was queued, and what came after
    assert broker.total("dfserve_blocks_redelivered_total") == 0
    assert _rss(processes["broker"]) < BOUND + TO_CONSUMER + nbytes
