"""Owns `dfserve produce`: a producer daemon on a data machine."""

from __future__ import annotations

import logging
import os
import signal
import sys

import click

from dfserve import endpoints
from dfserve.cli.types import DURATION, WORKERS

log = logging.getLogger("dfserve.producer")

# How parallel operators (tensorpack's, ours, torch's DataLoader) call their number of processes, and what they wrap.
PROCESS_COUNTS = ("num_proc", "nr_proc", "num_workers", "_num_proc", "num_processes")
WRAPPED = ("ds", "_ds", "df", "dataset", "source", "wrapped")


@click.command()
@click.argument("factory", metavar="MODULE:FACTORY", envvar="DFSERVE_PIPELINE")
@click.option(
    "--to",
    "address",
    required=True,
    metavar="ADDR",
    envvar="DFSERVE_TO",
    help="The broker's address. [env: DFSERVE_TO]",
)
@click.option(
    "--workers",
    type=WORKERS,
    default="1",
    show_default=True,
    envvar="DFSERVE_WORKERS",
    help="Processes that each run a copy of the pipeline; auto: one for each core. [env: DFSERVE_WORKERS]",
)
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="KEY=VALUE",
    envvar="DFSERVE_ARG",
    help="Keyword argument for the factory; the value is JSON where it parses as such, else text. May be given several "
    "times (in the variable: separated by spaces). [env: DFSERVE_ARG]",
)
@click.option(
    "--passes",
    type=click.IntRange(min=1),
    envvar="DFSERVE_PASSES",
    help="Send this many passes from each worker, and exit. Without it, repeat for ever, and restart workers that die. "
    "[env: DFSERVE_PASSES]",
)
@click.option(
    "--hwm",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    envvar="DFSERVE_HWM",
    help="Datapoints in flight from each worker, but at least 16 and at most 64 MiB. [env: DFSERVE_HWM]",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    envvar="DFSERVE_METRICS_PORT",
    help="Serve /metrics, /livez and /readyz of the workers on this port. [env: DFSERVE_METRICS_PORT]",
)
@click.option(
    "--grace",
    type=DURATION,
    default="10s",
    show_default=True,
    envvar="DFSERVE_GRACE",
    help="How long workers may take after SIGTERM to hand over what they hold. A second signal kills. "
    "[env: DFSERVE_GRACE]",
)
def produce(
    factory: str,
    address: str,
    workers: int,
    arguments: tuple[str, ...],
    passes: int | None,
    hwm: int,
    metrics_port: int | None,
    grace: float,
) -> None:
    """Run a pipeline on this machine and send its datapoints to a broker.

    FACTORY is called once, and each worker runs a copy of what it returns: a DataFlow, anything with __len__ and
    __getitem__ (a torch Dataset), or any iterable. The current folder is searched for MODULE first. The broker may
    be started later, or come back after it was gone.

    \b
    Examples:
      dfserve produce my_pipeline:make --to tcp://trainer:8877 --workers auto
      dfserve produce my_pipeline:make --to tcp://trainer:8877 --arg folder=/data --arg size=224 --passes 1
    """
    from dfserve.producer.board import Board
    from dfserve.producer.factory import build, load_factory, parse_args
    from dfserve.producer.metrics import serve_producer_metrics
    from dfserve.producer.supervisor import Plan, Supervisor

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing is held yet; as pid 1 it would be ignored
    endpoints.parse(address)
    flow = build(load_factory(factory), parse_args(list(arguments)))
    warn_of_processes(flow, workers)
    supervisor = Supervisor(Plan(flow, address, workers, passes, hwm=hwm, grace=grace), Board(workers))
    if metrics_port is None:
        sys.exit(supervisor.run())
    with serve_producer_metrics(supervisor, metrics_port) as server:
        log.info("metrics at port %d", server.server_port)
        sys.exit(supervisor.run(server))


def warn_of_processes(flow: object, workers: int) -> None:
    """Say so when a pipeline starts processes of its own in each of several workers."""
    nested = processes_of(flow)
    if workers > 1 and nested:
        log.warning(
            "the pipeline starts %d processes itself, in each of %d workers: %d in all. Use --workers 1, or take the "
            "parallel operator out of the pipeline",
            nested,
            workers,
            nested * workers,
        )


def processes_of(flow: object) -> int:
    """Count the processes that a pipeline's operators will start, looking through what they wrap."""
    count = 0
    seen: set[int] = set()
    while flow is not None and id(flow) not in seen:
        seen.add(id(flow))
        own = next((getattr(flow, name) for name in PROCESS_COUNTS if isinstance(getattr(flow, name, None), int)), 0)
        count += own if "Process" in type(flow).__name__ or "DataLoader" in type(flow).__name__ else 0
        flow = next((getattr(flow, name) for name in WRAPPED if getattr(flow, name, None) is not None), None)
    return count
