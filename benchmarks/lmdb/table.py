"""Owns the table of the group: MB/s of the arrays, and the ratio to plain LMDB."""

from __future__ import annotations

from benchmarks.lmdb.cases import CASES
from benchmarks.rounds import Figures, Results
from benchmarks.spread import cells, ratios

NAMES = {"plain": "plain LMDB", "ours": "dfserve LMDBSerializer", "rival_tensorpack": "tensorpack LMDBSerializer"}
ACTIONS = {"save": "save", "sequential": "load in order", "shuffled": "load shuffled"}
AIM = 0.8  # of plain LMDB's rate, for loading
HEAD = (
    "| case | | side | MB/s | min to max | x plain LMDB | min to max | first pass MB/s | min to max | x plain LMDB "
    "| min to max | aim |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(doing: str, side: str, rounds: dict[str, list[Figures]]) -> str:
    """Return one line of the table."""
    case, action = doing.split()
    figures = rounds[side]
    plain = rounds.get("plain") if side != "plain" else None
    line = [cells([one["bytes"] / one["seconds"] / 1e6 for one in figures]), compared(figures, plain)]
    if action == "save":
        line += [" | ", " | "]
    else:
        line.append(cells([one["first_items"] * one["datapoint_bytes"] / one["first_s"] / 1e6 for one in figures]))
        line.append(compared(first(figures), first(plain) if plain else None))
    aim = f"≥ {AIM}" if side == "ours" and action != "save" else ""
    return " | ".join([f"| {CASES[case].title}", ACTIONS[action], NAMES[side], *line, aim, ""]).rstrip()


def compared(figures: list[Figures], plain: list[Figures] | None) -> str:
    """Return the ratio's two cells, empty ones where there is nothing to compare with."""
    return cells(ratios(figures, plain), ".2f") if plain else " | "


def first(figures: list[Figures]) -> list[Figures]:
    """Return the figures of the first passes."""
    return [{"items": one["first_items"], "seconds": one["first_s"]} for one in figures]


def markdown(results: Results) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, *(row(doing, side, rounds) for doing, rounds in results.items() for side in rounds)])
