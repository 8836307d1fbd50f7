"""Owns `dfserve keys`: makes a broker's key pair and its clients' keys."""

from __future__ import annotations

from pathlib import Path

import click

from dfserve.keys import BROKER, CLIENTS, make_keys


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), envvar="DFSERVE_KEYS")
@click.argument("names", metavar="[NAME...]", nargs=-1, envvar="DFSERVE_KEYS_FOR")
def keys(folder: Path, names: tuple[str, ...]) -> None:
    """Make keys, so that a broker on tcp admits only your own clients, and all that travels is encrypted.

    Run it on the broker's machine. FOLDER gets the broker's key, which stays there, and for each NAME (default: client)
    a file clients/NAME.secret to copy to that client. A client is a producer or a consumer; machines may share a file,
    but then they can only be shut out together. Run it again with other names to admit more.

    \b
    FOLDER/broker.secret          the broker's:   dfserve broker --keys FOLDER ...
    FOLDER/clients/NAME.secret    the client's:   dfserve produce --keys NAME.secret ...
    FOLDER/clients/NAME.public    NAME is admitted while this is here; delete it, and NAME's next connection is refused

    All files have the mode 0600, and are refused if others can read them. In Python: RemoteDataZMQ(..., keys=...) and
    send_dataflow_zmq(..., keys=...) take the folder where they bind, a client's file where they connect. On ipc://
    keys are not used: the file's permissions say who may connect.

    \b
    Examples:
      dfserve keys keys data-1 data-2 trainer
      scp keys/clients/data-1.secret data-1:
    """
    secrets, new = make_keys(folder, names or ("client",))
    if new:
        click.echo(f"made {folder / BROKER}: it stays here, for `dfserve broker --keys {folder}`")
    for secret in secrets:
        click.echo(f"made {secret}: copy it to that client, for --keys {secret.name}")
    click.echo(f"To shut a client out, delete its .public file in {folder / CLIENTS}.")
