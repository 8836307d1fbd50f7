"""Owns the check that docs/metrics.md and the code name the same metrics, of the same type, with the same labels."""

from __future__ import annotations

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dfserve.broker import metrics as broker_metrics
from dfserve.broker.config import BrokerConfig
from dfserve.broker.core import Core
from dfserve.broker.metrics import registry_of
from dfserve.dataflow import DataFromList
from dfserve.producer import metrics as producer_metrics
from dfserve.producer.board import Board
from dfserve.producer.supervisor import Plan, Supervisor
from dfserve.producer.uplink import Uplink

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
ROW = re.compile(r"^\| `(dfserve_\w+)` \| (counter|gauge)(?:, ([^|]+))? \|", re.MULTILINE)
WORKER_GAUGE = {"dfserve_workers": ("gauge", ())}  # beside the counters that METRICS holds


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(PAGE)}


def in_code() -> dict[str, tuple[str, tuple[str, ...]]]:
    broker = {
        name: ("counter" if metric.kind is broker_metrics.COUNTER else "gauge", metric.labels)
        for name, metric in broker_metrics.METRICS.items()
    }
    return broker | dict.fromkeys(producer_metrics.METRICS, ("counter", ("worker",))) | WORKER_GAUGE


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    assert documented() == in_code()


def reasons(page: str, heading: str) -> set[str]:
    """Return the reasons in the table under a heading, but for those that are not counted."""
    table = re.split(r"^#+ ", (DOCS / page).read_text().split(heading)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return {
        name for name, text in re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE) if "not counted" not in text
    }


def test_what_can_be_counted_is_there_from_the_start_as_0() -> None:
    page = registry_of(Core(BrokerConfig(), lambda: 0.0))
    found = {family.name: family.samples for family in page.collect()}
    for name, label, names in [
        ("dfserve_bad_messages", "reason", reasons("protocol.md", "## Refusals\n")),
        ("dfserve_refused_connections", "reason", reasons("security.md", "### Who is turned away\n")),
        ("dfserve_errors", "kind", {"pipeline", "worker_lost", "consumer_lost"}),
        ("dfserve_epoch_items", "outcome", {"delivered", "filtered", "quarantined", "dropped"}),
    ]:
        assert {sample.labels[label]: sample.value for sample in found[name]} == dict.fromkeys(names, 0)


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "deploy" / "alerts.yml"]
    named = {name: page.name for page in pages for name in re.findall(r"\bdfserve_[a-z_]+\b", page.read_text())}
    assert {name: page for name, page in named.items() if name not in in_code()} == {}


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as page:
        return str(page.read().decode())


def test_the_producers_page_serves_exactly_what_is_documented_for_it() -> None:
    supervisor = Supervisor(Plan(DataFromList([[1]]), Uplink("ipc://@nobody")), Board(1))
    with (
        producer_metrics.serve_producer_metrics(supervisor, 0, "127.0.0.1") as server,
        ThreadPoolExecutor(1) as reading,
    ):
        text = reading.submit(read, f"http://127.0.0.1:{server.port}/metrics")
        while not text.done():
            server.turn(0.02)
    served = {sample.name for family in text_string_to_metric_families(text.result()) for sample in family.samples}
    assert served == {*producer_metrics.METRICS, *WORKER_GAUGE}
