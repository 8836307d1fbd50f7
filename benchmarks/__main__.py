"""Owns `python -m benchmarks`: its options, what it prints and the files that it writes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.environment import environment
from benchmarks.group import Chosen, Group
from benchmarks.guarantee.measure import GROUP as GUARANTEE
from benchmarks.images.measure import GROUP as IMAGES
from benchmarks.latency.measure import GROUP as LATENCY
from benchmarks.links.measure import GROUP as LINKS
from benchmarks.lmdb.measure import GROUP as LMDB
from benchmarks.network.measure import GROUP as NETWORK
from benchmarks.plot import plot
from benchmarks.rivals import Environments, NotInstalled, default_folder, versions
from benchmarks.rounds import Results
from benchmarks.scaling.measure import GROUP as SCALING
from benchmarks.soak.measure import GROUP as SOAK
from benchmarks.trainer.measure import GROUP as TRAINER
from benchmarks.transport.measure import GROUP as TRANSPORT

OUT = Path(__file__).resolve().parent / "out"
GROUPS = {
    "transport": TRANSPORT, "scaling": SCALING, "latency": LATENCY, "soak": SOAK,
    "images": IMAGES, "lmdb": LMDB, "network": NETWORK, "guarantee": GUARANTEE,
    "links": LINKS,
    "trainer": TRAINER,
}  # fmt: skip
CASES = list(dict.fromkeys(case for group in GROUPS.values() for case in group.cases))
SIDES = list(dict.fromkeys(side for group in GROUPS.values() for side in group.sides))


@click.command()
@click.argument("groups", type=click.Choice(list(GROUPS)), nargs=-1)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each side.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Measured in each turn.")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="May be repeated; default: all.")
@click.option("--side", "sides", type=click.Choice(SIDES), multiple=True, help="May be repeated; default: all.")
@click.option("--megabytes", type=click.FloatRange(1), default=300, show_default=True, help="Of an LMDB file.")
@click.option("--minutes", type=click.FloatRange(0.01), default=0.5, show_default=True, help="Of a soak.")
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of JPEG files.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Folder for the files of each group.")
@click.option(
    "--rivals", type=click.Path(path_type=Path), default=default_folder, help="Folder for their environments."
)
@click.option("--install/--no-install", default=True, show_default=True, help="Download the rivals that are missing.")
def main(groups: tuple[str, ...], out: Path, rivals: Path, install: bool, **options: Any) -> None:
    """Measure dfserve beside what it replaces, on this machine: all GROUPS, or those that are named.

    transport: datapoints from process to process. scaling: with more producers, consumers and groups. latency: from
    produced to received, and how long starting takes. soak: memory over minutes. images: files read and augmented by
    two processes. lmdb: saving and loading. network: images fetched from a server with latency. guarantee: epochs
    beside the stream. links: over a link of 1 Gbit/s and of 100 Mbit/s, with compression and without. trainer: CPU
    time in the trainer's process, and how long its step waits.
    """
    environments = Environments(rivals, install, say)
    runs = {name: choose(GROUPS[name], options, environments) for name in groups or GROUPS}
    runs = {name: chosen for name, chosen in runs.items() if chosen.cases and chosen.sides}
    if not runs:
        raise click.UsageError("no group that is to run has these cases and sides")
    for name, chosen in runs.items():
        where = environment() | versions(chosen.pythons)
        click.echo(", ".join(f"{package} {version}" for package, version in where.items()))
        results = GROUPS[name].run(chosen)
        write(out, name, where, chosen, results)


def write(out: Path, name: str, where: dict[str, str], chosen: Chosen, results: Results) -> None:
    """Print a group's table, and write it, all figures as JSON, and the plot."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.{kind}" for kind in ("json", "md", "png")]
    lasted = {"minutes": chosen.minutes} if name == "soak" else {"rounds": chosen.rounds, "seconds": chosen.seconds}
    settings = {"environment": where, **lasted, "skipped": chosen.skipped}
    files[0].write_text(json.dumps({**settings, "results": results}, indent=1))
    table = GROUPS[name].markdown(results)
    described = ", ".join(f"{package} {version}" for package, version in where.items())
    skipped = "".join(f"\nSkipped: {side}, because {why}\n" for side, why in chosen.skipped.items())
    rounds = ", ".join(f"{number:g} {what}" for what, number in lasted.items()) + f"; {described}"
    files[1].write_text(f"{table}\n\n{rounds}\n{skipped}")
    try:
        plot(GROUPS[name], f"{name}: {rounds}", results, files[2])
    except ImportError:
        say(f"no plot, because matplotlib cannot be imported (pip install 'dfserve[bench]'): {files.pop()}")
    click.echo(f"\n{table}\n\n" + "\n".join(map(str, files)))


def choose(group: Group, options: dict[str, Any], environments: Environments) -> Chosen:
    """Return what the options mean for one group; no cases or sides, if only those of other groups are asked for."""
    cases, sides = (
        tuple(one for one in there if one in asked or not asked)
        for there, asked in ((group.cases, options["cases"]), (group.sides, options["sides"]))
    )
    missing, pythons = {}, {}
    if cases and sides and (why := group.impossible()):
        missing = dict.fromkeys(sides, why)
    for side in sides if cases else ():
        try:
            if side in group.rivals:
                pythons[group.rivals[side]] = environments.python(group.rivals[side])
        except NotInstalled as error:
            missing[side] = str(error)
        for module in group.needs.get(side, ()):
            if not usable(module):
                missing[side] = f"{module} cannot be imported"
    for side, why in missing.items():
        say(f"skipped: {side}, because {why}")
    chosen = {**options, "cases": cases, "sides": tuple(side for side in sides if side not in missing)}
    return Chosen(**chosen, pythons=pythons, skipped=missing, say=say)


@functools.cache
def usable(module: str) -> bool:
    """Tell whether a rival's module can be imported: one that is installed may be too old for this Python or NumPy."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def say(line: str) -> None:
    """Show how far the run is."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
