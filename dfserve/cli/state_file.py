"""Owns the file that a loader's state is saved in: JSON that has it somewhere, and how it is found and put back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfserve.errors import ConfigError

MAX_BYTES = 256 << 20  # of a file: a state has a few hundred, and what is around it in JSON not much more
_MARKS = ("pipeline", "source", "split_size", "epoch")  # fields that only a state has all of
_TO_JSON = """save the state as JSON,
  json.dump(loader.state_dict(), open("state.json", "w"))
or take it out of a checkpoint of torch's, here from the key "data":
  import json, torch
  json.dump(torch.load("checkpoint.pt", map_location="cpu", weights_only=True)["data"], open("state.json", "w"))"""


@dataclass(frozen=True)
class Found:
    """A state in a document.

    Attributes:
        document: all of the file.
        path: the keys that lead to the state; none, if the document is the state.
        state: what is there, unchecked.
    """

    document: Any
    path: tuple[str, ...]
    state: dict[str, Any]

    def put(self, state: dict[str, Any]) -> Any:
        """Return the document with another state in that place."""
        return _replaced(self.document, self.path, state)

    def check_movable(self) -> None:
        """Raise ConfigError if an operator around the source is in the middle of a datapoint."""
        level = self.document
        for key in self.path:
            if isinstance(level, dict) and level.get("copies"):
                raise ConfigError(
                    f"the state was taken after {level['copies']} copies of a datapoint ({level.get('operator')}), so"
                    " nothing can be left out here: take one after the last copy"
                )
            level = _entry(level, key)


def read(file: Path) -> Any:
    """Return the document in a file of JSON.

    Raises:
        ConfigError: it is none, too large, or cannot be read.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{file} has {file.stat().st_size} bytes, more than the {MAX_BYTES} that are read: {_TO_JSON}"
            )
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON (it begins with {content[:8]!r}, {error}): {_TO_JSON}") from None


def find(document: Any, key: str | None) -> Found:
    """Return the state in a document: the only one, or the only one at or below ``key``.

    Raises:
        ConfigError: there is none, or there are several; it names their keys.
    """
    try:
        everything = list(_states(document, ()))
    except RecursionError:
        raise ConfigError("it is nested too deeply to be searched for a state: save the state by itself") from None
    # As they are written in messages, not split: a key itself may have dots in it.
    found = [each for each in everything if key is None or f"{'.'.join(each[0])}.".startswith(f"{key}.")]
    if len(found) == 1:
        return Found(document, *found[0])
    keys = ", ".join(".".join(path) for path, _ in everything)
    if not everything:
        raise ConfigError("there is no state of a loader in it: no dict with the fields " + ", ".join(_MARKS))
    if not found:
        raise ConfigError(f"there is no state of a loader at the key {key!r}; there is at: {keys}")
    raise ConfigError(f"there are {len(found)} states of loaders; choose one by --key: {keys}")


def write(document: Any, file: Path, *, replace: bool) -> None:
    """Write a document as JSON, in one step.

    Raises:
        ConfigError: the file exists without ``replace``, is a folder or in none, or cannot be written; what was there
            is as it was.
    """
    from dfserve.dataflow.serialize.saving import unfinished  # only for those who write

    try:
        with unfinished(file, replace=replace) as partial:
            partial.write_text(json.dumps(document, indent=2) + "\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written, and is as it was: {error.strerror}") from error


def _states(level: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(level, dict):
        if all(mark in level for mark in _MARKS):
            yield path, level
            return
        for key, entry in level.items():
            yield from _states(entry, (*path, key))
    elif isinstance(level, list):
        for place, entry in enumerate(level):
            yield from _states(entry, (*path, str(place)))


def _entry(level: Any, key: str) -> Any:
    return level[int(key)] if isinstance(level, list) else level[key]


def _replaced(level: Any, path: tuple[str, ...], state: dict[str, Any]) -> Any:
    if not path:
        return state
    inner = _replaced(_entry(level, path[0]), path[1:], state)
    if isinstance(level, list):
        place = int(path[0])
        return [*level[:place], inner, *level[place + 1 :]]
    return {**level, path[0]: inner}
