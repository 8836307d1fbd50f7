"""Owns the command `dfserve bench`: what one's own pipeline can do, and what a training needs of it."""

from __future__ import annotations

import json
import signal

import click

from dfserve.cli.signals import insist, leave
from dfserve.cli.types import BITRATE, DURATION, RATE, WORKERS


@click.command()
@click.argument("factory", metavar="MODULE:FACTORY", envvar="DFSERVE_BENCH_PIPELINE")
@click.option(
    "--workers",
    type=WORKERS,
    default="auto",
    show_default=True,
    envvar="DFSERVE_BENCH_WORKERS",
    help="Processes that each run a copy of the pipeline; auto: one for each core. [env: DFSERVE_BENCH_WORKERS]",
)
@click.option(
    "--need",
    type=RATE,
    metavar="RATE",
    envvar="DFSERVE_BENCH_NEED",
    help="Datapoints/s that the trainer takes, e.g. 2500 or 2.5k: how many workers and machines are needed, and what "
    "would limit. A batch made in the pipeline is one datapoint. [env: DFSERVE_BENCH_NEED]",
)
@click.option(
    "--link",
    type=BITRATE,
    metavar="BITRATE",
    envvar="DFSERVE_BENCH_LINK",
    help="The trainer's network link, e.g. 1Gbit: whether it carries what is needed; with --need. "
    "[env: DFSERVE_BENCH_LINK]",
)
@click.option(
    "--seconds",
    type=DURATION,
    default="3s",
    show_default=True,
    envvar="DFSERVE_BENCH_SECONDS",
    help="How long each measurement takes, and until every process has yielded something. [env: DFSERVE_BENCH_SECONDS]",
)
@click.option(
    "--warmup",
    type=DURATION,
    default="1s",
    show_default=True,
    envvar="DFSERVE_BENCH_WARMUP",
    help="How long to run from the first datapoint until measuring begins. [env: DFSERVE_BENCH_WARMUP]",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    envvar="DFSERVE_BENCH_ROUNDS",
    help="How often everything is measured; medians are shown. [env: DFSERVE_BENCH_ROUNDS]",
)
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="KEY=VALUE",
    envvar="DFSERVE_BENCH_ARG",
    help="Keyword argument for the factory, as for dfserve produce. [env: DFSERVE_BENCH_ARG]",
)
@click.option(
    "--timeout",
    type=DURATION,
    default="5m",
    show_default=True,
    envvar="DFSERVE_BENCH_TIMEOUT",
    help="Give up when nothing is yielded for this long. [env: DFSERVE_BENCH_TIMEOUT]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="DFSERVE_BENCH_JSON",
    help="Print one JSON object. [env: DFSERVE_BENCH_JSON]",
)
def bench(
    factory: str,
    workers: int,
    need: float | None,
    link: float | None,
    seconds: float,
    warmup: float,
    rounds: int,
    arguments: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> None:
    """Measure what a pipeline can do on this machine, and what a training needs of it.

    \b
    In each round, one after the other:
      bare            the pipeline, iterated in one process
      with workers    the same in --workers processes at once
      with transport  those as real workers; over tcp, through a broker, to one
                      consumer on this machine that does nothing but receive

    Then says what transport costs, what limits, whether batching in the pipeline would pay; and for the rate that
    --need gives how many workers and machines like this one it takes. A finite pipeline is repeated. Run it where
    nothing else runs: busy neighbours make a machine look slow.

    \b
    Examples:
      dfserve bench my_pipeline:make
      dfserve bench my_pipeline:make --arg folder=/data --need 2500 --link 10Gbit
      dfserve bench my_pipeline:make --workers 4 --seconds 10 --rounds 5 --json
    """
    if link is not None and need is None:
        raise click.UsageError("--link is the link that must carry what --need says: give --need RATE too")
    if seconds <= 0 or timeout <= 0:
        raise click.UsageError("--seconds and --timeout must be above 0")
    from dfserve.cli.bench_rounds import Question, measure
    from dfserve.cli.bench_rounds import as_json as to_json
    from dfserve.cli.bench_stages import Settings
    from dfserve.cli.bench_view import Progress, text
    from dfserve.cli.produce import calling, warn_of_processes
    from dfserve.producer.factory import build, load_factory, parse_args

    signal.signal(signal.SIGTERM, leave)
    insist()
    make, given = load_factory(factory), parse_args(arguments)
    with calling(factory):
        flow = build(make, given)
    warn_of_processes(flow, workers)
    progress = Progress()
    try:
        result = measure(
            factory,
            flow,
            cores=WORKERS.convert("auto", None, None),
            workers=workers,
            rounds=rounds,
            settings=Settings(seconds, warmup, timeout),
            show=progress.show,
            question=Question(need, link),
        )
    finally:
        progress.end()
    click.echo(json.dumps(to_json(result)) if as_json else text(result))
