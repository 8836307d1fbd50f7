"""Owns `python -m benchmarks`: its options, what it prints and the file that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks import rounds, table
from benchmarks.cases import CASES

OUT = Path(__file__).resolve().parent / "out"


@click.command()
@click.option("--rounds", "count", type=click.IntRange(1), default=5, show_default=True, help="Turns of each side.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Measured in each turn.")
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True, help="May be repeated; default: all.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Folder for transport.json.")
def main(count: int, seconds: float, cases: tuple[str, ...], out: Path) -> None:
    """Measure dfserve's transport beside tensorpack's and bare pyzmq, over tcp on this machine."""
    sides = rounds.available()
    for missing in set(rounds.SIDES) - set(sides):
        click.echo(f"skipped: {missing}, because {rounds.NEEDS[missing]} is not installed", err=True)
    environment = table.environment()
    click.echo(", ".join(f"{name} {version}" for name, version in environment.items()))
    results = rounds.run(cases or tuple(CASES), sides, count, seconds, lambda line: click.echo(line, err=True))
    out.mkdir(parents=True, exist_ok=True)
    file = out / "transport.json"
    file.write_text(json.dumps({"environment": environment, "seconds": seconds, "results": results}, indent=1))
    click.echo(f"\n{table.markdown(results)}\n\n{file}")


if __name__ == "__main__":
    main()
