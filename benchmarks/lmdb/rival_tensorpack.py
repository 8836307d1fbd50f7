"""Owns tensorpack's side: its LMDBSerializer with its default serializer, pickle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def save(datapoints: list[Any], path: str) -> None:
    """Write the file."""
    from tensorpack.dataflow import DataFromList, LMDBSerializer

    LMDBSerializer.save(DataFromList(datapoints, shuffle=False), path)


def load(path: str, shuffle: bool) -> Iterable[Any]:
    """Return the file's datapoints; each iterator is a pass."""
    from tensorpack.dataflow import LMDBSerializer

    data: Any = LMDBSerializer.load(path, shuffle)
    data.reset_state()
    return data  # type: ignore[no-any-return]  # it has no types
