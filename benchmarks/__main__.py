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
from benchmarks.lmdb.measure import GROUP as LMDB
from benchmarks.network.measure import GROUP as NETWORK
from benchmarks.transport.measure import GROUP as TRANSPORT

OUT = Path(__file__).resolve().parent / "out"
GROUPS = {"transport": TRANSPORT, "images": IMAGES, "lmdb": LMDB, "network": NETWORK, "guarantee": GUARANTEE}
CASES = [case for group in GROUPS.values() for case in group.cases]
SIDES = list(dict.fromkeys(side for group in GROUPS.values() for side in group.sides))


@click.command()
@click.argument("groups", type=click.Choice(list(GROUPS)), nargs=-1)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each side.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Measured in each turn.")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="May be repeated; default: all.")
@click.option("--side", "sides", type=click.Choice(SIDES), multiple=True, help="May be repeated; default: all.")
@click.option("--megabytes", type=click.FloatRange(1), default=300, show_default=True, help="Of an LMDB file.")
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of JPEG files.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Folder for the JSON file of each group.")
def main(groups: tuple[str, ...], out: Path, **options: Any) -> None:
    """Measure dfserve beside what it replaces, on this machine: all GROUPS, or those that are named.

    transport: datapoints over tcp. images: files read and augmented by two processes. lmdb: saving and loading.
    network: images fetched from a server with latency. guarantee: epochs beside
    the stream.
    """
    where = environment()
    click.echo(", ".join(f"{name} {version}" for name, version in where.items()))
    runs = {name: choose(GROUPS[name], options) for name in groups or GROUPS}
    runs = {name: chosen for name, chosen in runs.items() if chosen.cases and chosen.sides}
    if not runs:
        raise click.UsageError("no group that is to run has these cases and sides")
    for name, chosen in runs.items():
        results = GROUPS[name].run(chosen)
        out.mkdir(parents=True, exist_ok=True)
        file = out / f"{name}.json"
        file.write_text(json.dumps({"environment": where, "seconds": chosen.seconds, "results": results}, indent=1))
        click.echo(f"\n{GROUPS[name].markdown(results)}\n\n{file}")


def choose(group: Group, options: dict[str, Any]) -> Chosen:
    """Return what the options mean for one group; no cases or sides, if only those of other groups are asked for."""
    cases, sides = (
        tuple(one for one in there if one in asked or not asked)
        for there, asked in ((group.cases, options["cases"]), (group.sides, options["sides"]))
    )
    missing = {side: module for side in sides for module in group.needs.get(side, ()) if cases and not usable(module)}
    for side, module in missing.items():
        say(f"skipped: {side}, because {module} cannot be imported")
    return Chosen(**{**options, "cases": cases, "sides": tuple(side for side in sides if side not in missing)}, say=say)


@functools.cache
def usable(module: str) -> bool:
    """Tell whether a rival's module can be imported: one that is installed may be too old for this Python or NumPy."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def say(line: str) -> None:
    """Show how far the run is."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
