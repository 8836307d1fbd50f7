"""Owns the command `dfserve demo`: its help, and that what it needs is installed."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
from pathlib import Path

import click

from dfserve.cli.signals import insist, leave
from dfserve.errors import ConfigError

NEEDED = ("cv2", "prometheus_client")  # for any folder; the default photographs need scikit-image too


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path), envvar="DFSERVE_FOLDER")
def demo(folder: Path | None) -> None:
    """Show it all on this machine, in some ten seconds.

    Starts a broker, two producers (data-1, data-2) and a trainer with a simulated step, on the photographs of FOLDER:
    ImageNet-shaped (train/<class>/*.JPEG), or any with images below it, whose subfolders are then the classes. By
    default on photographs that come with scikit-image. Each producer sends whole passes over the folder, or what it
    manages in 8 s.

    Shows the rate and the queue of each producer, says at the end whether everything produced was delivered (else the
    exit code is 1) and which side is the bottleneck, and writes ./dfserve-demo.png: a sample of what arrived.

    \b
    Examples:
      dfserve demo
      dfserve demo ~/Pictures
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: pip install 'dfserve[demo]'")
    if not os.access(Path.cwd(), os.W_OK):
        raise ConfigError(f"the demo writes a picture, and {Path.cwd()} is not writable: run it in another folder")
    from dfserve.cli.demo_run import run

    signal.signal(signal.SIGTERM, leave)
    insist()
    with tempfile.TemporaryDirectory(prefix="dfserve-demo-") as made:
        work = Path(made)
        chosen = _default_photos(work / "photos") if folder is None else folder.expanduser().absolute()
        if not run(chosen, work):
            raise click.exceptions.Exit(1)


def _default_photos(folder: Path) -> Path:
    from dfserve.cli.photos import cut_photos

    cut_photos(folder)
    return folder
