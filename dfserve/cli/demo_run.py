"""Owns the demo's run: it starts the broker and the producers, is the trainer itself, and says what came of it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dfserve.cli.contact_sheet import ContactSheet
from dfserve.cli.demo_figures import Figures, Reading, account, read_metrics
from dfserve.cli.demo_pipeline import class_names, open_photos
from dfserve.cli.demo_processes import Processes, free_ports
from dfserve.cli.demo_view import View
from dfserve.consumer.remote import RemoteDataZMQ
from dfserve.errors import Starved

PRODUCERS = ("data-1", "data-2")
QUEUE = "16MiB"  # about 100 images: small, so that the queue is seen to fill and to empty
IMAGES = 1200  # that each producer sends at least: whole passes over the folder, several if it has fewer
SECONDS = 8.0  # after which a producer ends its passes, so that the demo ends on any folder
BATCH = 32  # images in a training step
STEP = 0.05  # seconds that a training step takes: 640 images/s, about what two workers decode
PATIENCE = 15.0  # seconds without a datapoint until the demo gives up
LOOK = 1.0  # seconds of waiting between two looks at the children
SETTLE = 5.0  # seconds for the last acknowledgement to reach the broker's metrics
SHEET = "dfserve-demo.png"


def run(folder: Path, work: Path) -> bool:
    """Run on the photographs of a folder; tell whether everything that was produced was delivered.

    Args:
        folder: absolute.
        work: a folder for logs, which the caller removes.

    Raises:
        ConfigError: there are no photographs.
        DfserveError: a child failed, a pipeline raised, nothing arrived.
    """
    photos = open_photos(folder)
    names = class_names(photos)
    passes = math.ceil(IMAGES / len(photos))
    plural = "passes" if passes > 1 else "pass"
    click.echo(f"{len(photos)} photographs of {len(names)} classes; each producer sends {passes} {plural}")
    figures, sheet = Figures(), ContactSheet()
    port, metrics_port = free_ports(2)
    with Processes(work) as children:
        _start(children, f"tcp://127.0.0.1:{port}", metrics_port, folder, passes)
        watch = Watch(metrics_port, View(sys.stdout.isatty()), figures)
        with RemoteDataZMQ(f"tcp://127.0.0.1:{port}", bind=False, min_producers=len(PRODUCERS), timeout=LOOK) as data:
            _train(data, arrivals(data, children), names, figures, sheet, watch)
            last = _settled(metrics_port, figures)
    fine, text = account(figures, last)
    _conclude(figures, sheet, text)
    return fine


def _start(children: Processes, address: str, metrics_port: int, folder: Path, passes: int) -> None:
    broker = ("broker", "--bind", address, "--queue-bytes", QUEUE, "--metrics-port", str(metrics_port))
    children.start("broker", *broker, "--grace", "1s")
    for name in PRODUCERS:
        pipeline = ("dfserve.cli.demo_pipeline:make", "--arg", f"folder={folder}", "--arg", f"seconds={SECONDS}")
        children.start(name, "produce", *pipeline, "--to", address, "--passes", str(passes), "--grace", "1s")


def arrivals(data: RemoteDataZMQ, children: Processes) -> Iterator[Any]:
    """Yield what arrives, looking after the children while nothing does.

    Raises:
        Starved: nothing arrived for a quarter of a minute.
        DfserveError: a child failed.
    """
    since = time.monotonic()
    while True:
        try:
            datapoint = next(data)
        except StopIteration:
            return
        except Starved:
            children.check()
            if time.monotonic() - since > PATIENCE:
                raise
            continue
        yield datapoint
        since = time.monotonic()


class Watch:
    """Looks at the broker's metrics now and then, and shows them."""

    def __init__(self, port: int, view: View, figures: Figures) -> None:
        self._port, self._view, self._figures = port, view, figures
        self._due = 0.0
        self._received = 0

    def look(self) -> None:
        """Look if it is time to."""
        if time.monotonic() < self._due:
            return
        reading = read_metrics(self._port)
        received = sum(reading.received.values())
        if received > self._received:  # afterwards the queue only empties, which says nothing about either side
            self._received = received
            self._figures.occupancies.append(reading.occupancy)
        self._view.show(reading, self._figures)
        self._due = time.monotonic() + self._view.interval


def _train(
    data: RemoteDataZMQ,
    datapoints: Iterator[Any],
    names: dict[int, str],
    figures: Figures,
    sheet: ContactSheet,
    watch: Watch,
) -> None:
    """Be the trainer: take every datapoint, and a step's time for each batch."""
    start = 0.0  # what it had waited when the first datapoint came: the processes' start, not the pipelines' slowness
    for image, label, producer, number in datapoints:
        start = start or data.waited
        figures.add(producer, number)
        figures.waited = data.waited - start
        sheet.add(image, (names.get(label, str(label)), f"{producer} #{number}"))
        if figures.arrived.total() % BATCH == 0:
            time.sleep(STEP)
        watch.look()


def _settled(port: int, figures: Figures) -> Reading:
    """Read the metrics when the trainer's last acknowledgement is in them."""
    deadline = time.monotonic() + SETTLE
    while (reading := read_metrics(port)).delivered < figures.arrived.total() and time.monotonic() < deadline:
        time.sleep(0.05)
    return reading


def _conclude(figures: Figures, sheet: ContactSheet, agreement: str) -> None:
    file = Path.cwd() / SHEET
    total = figures.arrived.total()
    sheet.write(file, f"dfserve: a sample of the {total} images that arrived from {len(PRODUCERS)} producers")
    click.echo(f"\n{agreement}")
    click.echo(f"{total / figures.seconds:.0f} images/s for {figures.seconds:.1f} s")
    click.echo(f"bottleneck: {figures.bottleneck()}")
    click.echo(f"what arrived: {file}")
