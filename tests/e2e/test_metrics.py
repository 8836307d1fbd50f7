"""Owns the tests that the metrics say what happened, and that the health pages say how it stands."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.broker.metrics import registry_of

Start = Callable[..., Any]
ITEMS, NBYTES = 300, 20_000


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _count(program: Any) -> int:
    return sum(isinstance(line, list) for line in program.lines)


def _metrics_port(producer: Any) -> int:
    producer.wait_until_said("metrics at port ")
    return next(int(line["message"].split()[-1]) for line in producer.lines if "metrics at" in line["message"])


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 60)


def _drip(client: socket.socket, port: int) -> socket.socket:
    """Say a byte; returns the client, or another one if that was cut off."""
    try:
        client.send(b"G")
    except OSError:
        client.close()
        with contextlib.suppress(OSError):  # the daemon has ended
            return _connected(port)
    return client


@contextlib.contextmanager
def _dripping(*ports: int) -> Iterator[None]:
    """Have a client at each port that never ends its request, and is never silent for long."""
    stop = threading.Event()
    clients = {port: _connected(port) for port in ports}

    def drip() -> None:
        while not stop.wait(0.2):
            for port in ports:
                clients[port] = _drip(clients[port], port)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for client in clients.values():
            client.close()


def test_received_and_delivered_are_what_the_consumers_counted(
    start: Start, run_broker: Start, produce: Start, until: Any
) -> None:
    broker = run_broker()
    groups = {name: start("pipes.py", broker.address, "--group", name, "--min-producers", "2") for name in ("a", "b")}
    for consumer in groups.values():
        consumer.wait_until_said("ready")
    for number in range(2):
        produce(broker.address, f"data-{number}", "--passes", "1", start=number * 1000, count=ITEMS, nbytes=NBYTES)
    assert [consumer.wait() for consumer in groups.values()] == [0, 0]
    broker.wait_for("dfserve_datapoints_delivered_total", 4 * ITEMS)  # the last receipts may still be on their way

    counted = {name: _count(consumer) for name, consumer in groups.items()}
    assert counted == broker.labelled("dfserve_datapoints_delivered_total") == {"a": 2 * ITEMS, "b": 2 * ITEMS}
    assert broker.labelled("dfserve_datapoints_received_total") == {"data-0/0": ITEMS, "data-1/0": ITEMS}
    received, delivered = (broker.labelled(f"dfserve_{word}_bytes_total") for word in ("received", "delivered"))
    assert all(nbytes >= ITEMS * NBYTES for nbytes in received.values())
    assert delivered == {"a": received.total(), "b": received.total()}
    assert set(received) == {"data-0/0", "data-1/0"}
    for name in ("dfserve_queue_bytes", "dfserve_queue_items", "dfserve_queue_granted_bytes"):
        assert broker.total(name) == 0, name
    until(lambda: broker.total("dfserve_consumers") == 0, "their goodbyes, which come after the receipts")
    for name in ("bad_messages", "errors", "blocks_redelivered", "blocks_duplicate", "datapoints_skipped"):
        assert broker.total(f"dfserve_{name}_total") == 0, name


def test_a_slow_consumer_drives_occupancy_to_one_and_producers_are_seen_to_be_blocked(
    start: Start, run_broker: Start, produce: Start, scrape: Any, until: Any
) -> None:
    broker = run_broker("--queue-bytes", "8MiB")
    produce(broker.address, "data-0", count=1000, nbytes=100_000)
    start("pipes.py", broker.address, "--pause", "0.2")
    until(lambda: broker.total("dfserve_queue_occupancy_ratio") >= 0.8, "an occupancy of 0.8")
    blocked = broker.labelled("dfserve_producer_blocked_seconds_total")
    until(
        lambda: broker.labelled("dfserve_producer_blocked_seconds_total")["data-0/0"] > blocked["data-0/0"] + 0.5,
        "half a second more of being blocked",
    )
    assert broker.total("dfserve_queue_capacity_bytes") == 8 << 20
    # A block that was freed is missing until the next one is there.
    until(lambda: broker.total("dfserve_queue_occupancy_ratio") >= 0.8, "an occupancy of 0.8 again")
    page = scrape(broker.metrics_port)  # of one moment: between two, one block may be freed and another one granted
    assert page.total("dfserve_queue_bytes") + page.total("dfserve_queue_granted_bytes") <= 8 << 20


def test_a_slow_producer_drives_occupancy_to_zero_and_the_consumer_is_seen_to_wait(
    start: Start, run_broker: Start, produce: Start, until: Any
) -> None:
    broker = run_broker("--queue-bytes", "8MiB")
    produce(broker.address, "data-0", count=1000, nbytes=100_000, pause=0.2)
    start("pipes.py", broker.address, "--group", "train")
    broker.wait_for("dfserve_datapoints_delivered_total", 2)
    waited = broker.labelled("dfserve_consumer_wait_seconds_total")["train"]
    until(
        lambda: broker.labelled("dfserve_consumer_wait_seconds_total")["train"] > waited + 0.5,
        "half a second more of waiting",
    )
    until(lambda: broker.total("dfserve_queue_occupancy_ratio") <= 0.1, "an empty queue, if the consumer was held up")
    assert broker.total("dfserve_producers") == broker.total("dfserve_consumers") == 1


def test_a_broker_is_live_and_ready_and_while_it_drains_only_live(
    start: Start, run_broker: Start, produce: Start, until: Any
) -> None:
    broker = run_broker("--queue-bytes", "8MiB", "--grace", "50s")
    assert [_status(broker.metrics_port, path) for path in ("/livez", "/readyz", "/metrics", "/")] == [
        200,
        200,
        200,
        404,
    ]
    produce(broker.address, "data-0", nbytes=100_000)
    consumer = start("pipes.py", broker.address, "--hang-after", "1")
    consumer.wait_until_said("holding")
    broker.wait_for("dfserve_queue_occupancy_ratio", 0.5)  # or it might have nothing to wait for, and end
    broker.program.signal(signal.SIGTERM)
    until(lambda: _status(broker.metrics_port, "/readyz") == 503, "the broker to say that it is draining")
    assert _status(broker.metrics_port, "/livez") == 200
    broker.program.signal(signal.SIGTERM)
    assert broker.program.wait() == 128 + signal.SIGTERM


def test_a_producer_serves_the_metrics_of_its_workers(
    start: Start, run_broker: Start, produce: Start, scrape: Any, until: Any
) -> None:
    broker = run_broker("--queue-bytes", "8MiB")
    producer = produce(broker.address, "data-0", "--workers", "2", "--metrics-port", "0", count=10, nbytes=100_000)
    port = _metrics_port(producer)
    assert _status(port, "/livez") == 200
    consumer = start("pipes.py", broker.address, "--pause", "0.005")
    until(lambda: _count(consumer) >= 100, "datapoints")
    # It goes on: a worker knows how long it was blocked when it is not any more, and says it once a second.
    until(lambda: scrape(port).total("dfserve_worker_blocked_seconds_total") > 0, "a worker to have been blocked")
    until(lambda: scrape(port).total("dfserve_worker_datapoints_total") >= 100, "them to be counted")
    page = scrape(port)
    assert page.total("dfserve_workers") == 2
    for name in ("datapoints", "bytes", "passes"):
        values = {f'dfserve_worker_{name}_total{{worker="data-0/{slot}"}}' for slot in range(2)}
        assert values <= set(page.values), name
    assert page.total("dfserve_worker_bytes_total") >= 100 * 100_000
    assert page.total("dfserve_worker_datapoints_total") >= 100
    assert _status(port, "/readyz") == 200


def test_slow_clients_of_the_pages_hold_up_no_probe_no_restart_and_no_end(
    run_broker: Start, produce: Start, until: Any
) -> None:
    broker = run_broker("--grace", "500ms")
    producer = produce(broker.address, "data-0", "--metrics-port", "0", count=10)
    ports = (_metrics_port(producer), broker.metrics_port)
    with _dripping(*ports), _connected(ports[0]) as silent:
        assert [_status(port, "/livez") for port in ports] == [200, 200]
        (worker,) = until(producer.children, "the worker")
        worker.kill()
        producer.wait_until_said("killed by SIGKILL")
        until(lambda: broker.total("dfserve_producer_restarts") == 1, "the next worker")
        assert silent.recv(1) == b"", "it is cut off, and the worker that was forked meanwhile does not hold it"
        for daemon in (producer, broker.program):
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0


IMPORT = """
import sys
import dfserve.broker.metrics, dfserve.broker.http, dfserve.producer.metrics
from prometheus_client import REGISTRY
print(sorted(metric.name for metric in REGISTRY.collect() if metric.name.startswith("dfserve")))
"""


def test_importing_the_metrics_registers_nothing() -> None:
    child = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_two_brokers_in_one_process_have_registries_of_their_own() -> None:
    cores = [Core(BrokerConfig(queue_bytes=size << 20), lambda: 0.0) for size in (1, 2)]
    cores[0].tally.producer("only-here/0").datapoints = 7
    cores[0].tally.bad["magic"] = 3
    pages = [registry_of(core) for core in cores]
    sizes = [page.get_sample_value("dfserve_queue_capacity_bytes") for page in pages]
    assert sizes == [1 << 20, 2 << 20]
    labels = {"producer": "only-here/0"}
    assert [page.get_sample_value("dfserve_datapoints_received_total", labels) for page in pages] == [7, None]
    assert [page.get_sample_value("dfserve_bad_messages_total", {"reason": "magic"}) for page in pages] == [3, 0]


PROMISED = """
queue_items queue_bytes queue_capacity_bytes queue_occupancy_ratio producers consumers build_info
datapoints_received_total datapoints_delivered_total received_bytes_total delivered_bytes_total
consumer_wait_seconds_total producer_blocked_seconds_total producer_last_seen_timestamp_seconds
blocks_redelivered_total blocks_duplicate_total bad_messages_total errors_total
"""


def test_every_metric_that_was_promised_is_offered_from_the_start() -> None:
    page = {family.name: family for family in registry_of(Core(BrokerConfig(), lambda: 0.0)).collect()}
    promised = {f"dfserve_{name}".removesuffix("_total") for name in PROMISED.split()}
    assert promised <= set(page)
    assert all(family.documentation for family in page.values())
