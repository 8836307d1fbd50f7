"""Owns dfserve's side: its LMDBSerializer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dfserve.dataflow import DataFromList, LMDBSerializer


def save(datapoints: list[Any], path: str) -> None:
    """Write the file."""
    LMDBSerializer.save(DataFromList(datapoints, shuffle=False), path)


def load(path: str, shuffle: bool) -> Iterable[Any]:
    """Return the file's datapoints; each iterator is a pass."""
    data = LMDBSerializer.load(path, shuffle)
    data.reset_state()
    return data
