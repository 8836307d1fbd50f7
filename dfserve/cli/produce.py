"""Owns `dfserve produce`: a producer daemon on a data machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfserve import endpoints
from dfserve.cli.types import DURATION, WORKERS
from dfserve.errors import DfserveError

if TYPE_CHECKING:
    from dfserve.dataflow.base import DataFlow

log = logging.getLogger("dfserve.producer")

DEFAULT = "default"  # what a pipeline without a name is called, also by consumers that name none
# How parallel operators (tensorpack's, ours, torch's DataLoader) call their number of processes, and what they wrap.
PROCESS_COUNTS = ("num_proc", "nr_proc", "num_workers", "_num_proc", "num_processes")
WRAPPED = ("ds", "_ds", "df", "dataset", "source", "wrapped")


@click.command()
@click.argument("factories", metavar="[NAME=]MODULE:FACTORY...", nargs=-1, required=True, envvar="DFSERVE_PIPELINE")
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
    "times (in the variable: separated by spaces). With several pipelines, NAME.KEY=VALUE is for one of them, "
    "KEY=VALUE for all. [env: DFSERVE_ARG]",
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
    help="Datapoints in flight from each worker; between 32 MiB, which always may be, and 64 MiB. [env: DFSERVE_HWM]",
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
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    envvar="DFSERVE_KEYS",
    help="This client's key file, made by `dfserve keys` on the broker's machine; "
    "for brokers that ask for one. [env: DFSERVE_KEYS]",
)
@click.option(
    "--compression",
    type=click.Choice(["lz4", "zstd"]),
    envvar="DFSERVE_COMPRESSION",
    help="Compress what is sent, for slow links; needs dfserve[lz4] or dfserve[zstd] here and at the broker. "
    "[env: DFSERVE_COMPRESSION]",
)
@click.option(
    "--shared-memory/--no-shared-memory",
    default=True,
    show_default=True,
    envvar="DFSERVE_SHARED_MEMORY",
    help="Where the broker is on this machine, build blocks in memory that it reads. [env: DFSERVE_SHARED_MEMORY]",
)
def produce(
    factories: tuple[str, ...],
    address: str,
    workers: int,
    arguments: tuple[str, ...],
    passes: int | None,
    hwm: int,
    metrics_port: int | None,
    grace: float,
    keys: Path | None,
    compression: str | None,
    shared_memory: bool,
) -> None:
    """Run a pipeline, or several, on this machine and send its datapoints to a broker.

    FACTORY is called once, and each worker runs a copy of what it returns: a DataFlow, anything with __len__ and
    __getitem__ (a torch Dataset), or any iterable. The current folder is searched for MODULE first. The broker may
    be started later, or come back after it was gone.

    Of several pipelines, whose NAMEs consumers ask for, each worker calls a FACTORY when its pipeline is first wanted,
    and serves whichever consumers wait for. A single one without a NAME is called "default".

    \b
    Examples:
      dfserve produce my_pipeline:make --to tcp://trainer:8877 --workers auto
      dfserve produce my_pipeline:make --to tcp://trainer:8877 --arg folder=/data --arg size=224 --passes 1
      dfserve produce train=my_pipeline:train val=my_pipeline:val --to tcp://trainer:8877
    """
    from dfserve.keys import read_client_keys
    from dfserve.producer.board import Board
    from dfserve.producer.factory import load_factory, parse_args_of, parse_pipelines
    from dfserve.producer.metrics import serve_producer_metrics
    from dfserve.producer.supervisor import Plan, Supervisor
    from dfserve.producer.uplink import Uplink
    from dfserve.wire.codecs import codec_of

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing is held yet; as pid 1 it would be ignored
    endpoints.parse(address)
    own = None if keys is None else read_client_keys(keys)
    if compression is not None:
        codec_of(compression)
    named = parse_pipelines(factories, DEFAULT)
    kwargs = parse_args_of(named, arguments)
    builds = {name: cache(partial(_build, load_factory(named[name]), kwargs[name], workers)) for name in named}
    if len(builds) == 1:
        ((name, build_only),) = builds.items()
        with calling(named[name]):
            build_only()  # before the workers are forked, who share it
    uplink = Uplink(address, hwm, own, compression, shared_memory)
    supervisor = Supervisor(Plan(builds, uplink, workers, passes, grace=grace), Board(workers))
    if metrics_port is None:
        sys.exit(supervisor.run())
    with serve_producer_metrics(supervisor, metrics_port) as server:
        log.info("metrics at port %d", server.port)
        sys.exit(supervisor.run(server))


class FactoryRaised(click.ClickException):
    """A factory raised something of its own."""

    exit_code = 3  # as for a pipeline that raised


@contextmanager
def calling(factory: str) -> Iterator[None]:
    """Show what a factory raises as the user's own error, without our frames; ``factory``: MODULE:FACTORY."""
    from dfserve.producer.factory import traceback_in_factory

    try:
        yield
    except DfserveError:
        raise
    except Exception as error:
        raise FactoryRaised(f"the factory {factory} raised:\n{traceback_in_factory(error)}") from error


def _build(factory: Callable[..., Any], kwargs: dict[str, Any], workers: int) -> DataFlow:
    from dfserve.producer.factory import build

    flow = build(factory, kwargs)
    warn_of_processes(flow, workers)
    return flow


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
