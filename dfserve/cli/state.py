"""Owns `dfserve state`: looking at the state of a loader that was saved as JSON, and moving it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from dfserve.cli.state_file import Found, find, read, write
from dfserve.epochs.skipping import skip, skip_rows
from dfserve.epochs.state import State

_FILE = click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DFSERVE_STATE_FILE",
)
_KEY = click.option(
    "--key",
    metavar="KEY",
    envvar="DFSERVE_STATE_KEY",
    help="Where in FILE the state is, if there are several: the keys that lead to it, with dots between them. "
    "[env: DFSERVE_STATE_KEY]",
)


@click.group()
def state() -> None:
    """Show or move the position of a loader, as state_dict() gave it.

    FILE is JSON: the state itself, or something larger that has it somewhere.

    \b
    Examples:
      dfserve state show checkpoint.json
      dfserve state skip checkpoint.json --rows 200 --out later.json
    """


@state.command()
@_FILE
@_KEY
def show(file: Path, key: str | None) -> None:
    """Show the plan of a state, and where in it it is.

    \b
    Example:
      dfserve state show checkpoint.json
    """
    found = find(read(file), key)
    place = f" at {'.'.join(found.path)}" if found.path else ""
    state = State.from_dict(found.state)
    click.echo(f"{file}{place}: epoch {state.epoch}, {_progress(state)}")
    for name, text in _lines(state):
        click.echo(f"  {name:<9} {text}")


@state.command("skip")
@_FILE
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    envvar="DFSERVE_STATE_ROWS",
    help="Pass over this many rows of world x stride datapoints, mostly a batch of each rank. In strict order only. "
    "[env: DFSERVE_STATE_ROWS]",
)
@click.option(
    "--items",
    type=click.IntRange(min=1),
    envvar="DFSERVE_STATE_ITEMS",
    help="Pass over at least this many items: rounded up to whole rows in strict order, to whole splits in order of "
    "arrival. [env: DFSERVE_STATE_ITEMS]",
)
@_KEY
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    envvar="DFSERVE_STATE_OUT",
    help="Write to this file, which must not exist, and leave FILE as it is. [env: DFSERVE_STATE_OUT]",
)
def skip_command(file: Path, rows: int | None, items: int | None, key: str | None, out: Path | None) -> None:
    """Pass over the next part of the epoch, as after a spike of the loss.

    FILE is replaced in one step, with nothing but the state changed in it, unless --out names another file. In strict
    order a row is counted in outputs of the pipeline: with filters or one-to-many maps these are not as many items.

    \b
    Example:
      dfserve state skip checkpoint.json --rows 200
    """
    if (rows is None) == (items is None):
        raise click.UsageError("give either --rows or --items")
    document = read(file)
    found = find(document, key)
    before = State.from_dict(found.state)
    moved = _moved(found, before, rows, items)
    write(found.put(moved.after.to_dict()), file if out is None else out, replace=out is None)
    click.echo(
        f"{moved.text}; epoch {before.epoch} goes on in {file if out is None else out}: {_progress(moved.after)}"
    )
    beyond = moved.after.row * moved.after.row_size - moved.after.n
    if moved.after.order == "strict" and beyond > 0:
        click.echo(
            f"warning: this is {beyond} datapoints beyond the {moved.after.n} items of the epoch; unless the pipeline"
            " makes several datapoints of each, nothing is left of it",
            err=True,
        )


@dataclass(frozen=True)
class _Moved:
    after: State
    text: str


def _moved(found: Found, state: State, rows: int | None, items: int | None) -> _Moved:
    found.check_movable()
    if rows is not None:
        return _Moved(skip_rows(state, rows), f"skipped {rows} rows of {state.row_size} datapoints")
    assert items is not None
    after, skipped = skip(state, items)
    what = f"{(after.row - state.row)} rows" if state.order == "strict" else "whole splits"
    return _Moved(after, f"skipped {skipped} items ({what})")


def _progress(state: State) -> str:
    """Say how much of the epoch is handed out."""
    if state.order == "strict":
        handed = state.row * state.row_size + state.taken * state.world
        return f"{handed} datapoints handed out, {_percent(handed, state.n)} of {state.n} items if each makes one"
    items = sum(last * state.split_size - first * state.split_size for first, last in state.done)
    if state.done and state.done[-1][1] == state.splits:
        items -= state.splits * state.split_size - state.n  # the last split has fewer
    items += sum(min(handed, state.items_of(split)) for split, handed in state.open)
    return f"{items} of {state.n} items handed out, {_percent(items, state.n)}"


def _percent(part: int, whole: int) -> str:
    return f"{min(1.0, part / whole if whole else 1.0):.1%}"


def _lines(state: State) -> list[tuple[str, str]]:
    order = f"{state.order}, {'shuffled anew in every epoch' if state.shuffle else 'as in the source'}"
    return [
        ("pipeline", state.pipeline),
        ("source", f"{state.n} items, fingerprint {state.source}"),
        ("order", f"{order}, seed {state.seed}"),
        ("splits", f"{state.splits} of {state.split_size} items"),
        ("ranks", _ranks(state)),
        ("batches", f"of {state.batch} datapoints, made by the loader" if state.batch else "none made by the loader"),
        ("position", _strict_position(state) if state.order == "strict" else _arrival_position(state)),
    ]


def _ranks(state: State) -> str:
    text = f"{state.world}, rows of {state.world} x {state.stride} datapoints"
    return f"{text}, the last one: {state.even}" if state.even else text


def _strict_position(state: State) -> str:
    return (
        f"{state.row} rows and {state.taken} of the next {state.stride}; split {state.split} of {state.splits}, whose"
        f" first output is number {state.start}"
    )


def _arrival_position(state: State) -> str:
    done = sum(last - first for first, last in state.done)
    ranges = len(state.done)
    text = f"{done} of {state.splits} splits ({_percent(done, state.splits)}), in {ranges} ranges"
    return "; ".join([text, *(f"{handed} datapoints of split {split}" for split, handed in state.open)])
