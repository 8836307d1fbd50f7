"""Owns the `dfserve` command: its subcommands, its exit codes and how errors are shown."""

from __future__ import annotations

import sys

import click

from dfserve.cli.bench import bench
from dfserve.cli.broker import broker
from dfserve.cli.consume import consume
from dfserve.cli.demo import demo
from dfserve.cli.keys import keys
from dfserve.cli.produce import produce
from dfserve.cli.state import state
from dfserve.errors import ConfigError, DfserveError, RemoteError, Starved
from dfserve.logs import set_up_logging
from dfserve.version import __version__

EXIT_CODES = """\b
Exit codes:
  0  done, or drained after SIGTERM
  1  an unexpected error
  2  wrong usage, address or module
  3  a pipeline or its factory raised; consume and bench: or a worker died
  4  produce: a worker was killed
  5  told to stop in a finite pass, and could not hand over everything within the grace
  6  nothing arrived within the timeout
"""


@click.group(
    context_settings={"auto_envvar_prefix": "DFSERVE", "help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES
)
@click.version_option(__version__, prog_name="dfserve")
@click.option(
    "--log-level",
    envvar="DFSERVE_LOG",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="How much to log, to standard error: lines on a terminal, JSON elsewhere. [env: DFSERVE_LOG]",
)
def cli(log_level: str) -> None:
    """Feed trainers from pipelines that run on other machines.

    \b
    On the training machine:   dfserve broker --bind tcp://0.0.0.0:8877 --insecure
    On each data machine:      dfserve produce my_pipeline:make --to tcp://trainer:8877 --workers auto
    In the trainer:            for datapoint in RemoteDataZMQ("tcp://localhost:8877", bind=False): ...
    To measure without one:    dfserve consume tcp://localhost:8877 --seconds 10
    To know what is needed:    dfserve bench my_pipeline:make --need 2500
    To let only yours in:      dfserve keys FOLDER NAME..., then --keys in place of --insecure

    Every option is also an environment variable, named in its help.
    """
    set_up_logging(log_level)


for command in (produce, broker, consume, bench, demo, state, keys):
    cli.add_command(command)


def main() -> None:
    """Run the command; show our own errors as one message, without a traceback of ours."""
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except DfserveError as error:
        click.echo(f"dfserve: {error}", err=True)
        sys.exit(status_of(error))


def status_of(error: DfserveError) -> int:
    """Return the exit code for an error."""
    codes: tuple[tuple[type[DfserveError], int], ...] = ((ConfigError, 2), (RemoteError, 3), (Starved, 6))
    return next((code for kind, code in codes if isinstance(error, kind)), 1)
