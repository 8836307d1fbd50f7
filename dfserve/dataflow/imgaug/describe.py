"""Owns how augmentors and transforms keep the arguments they were made with, and are printed: as the call that did."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

_ABSENT = object()


class Described:
    """What is printed as ``imgaug.Name(argument=value, ...)``."""

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep a constructor's arguments as attributes: ``self._init(locals())``, as in tensorpack."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def __repr__(self) -> str:
        """Return the call, of the arguments that are kept under their names and are not at their default."""
        shown = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            value = vars(self).get(name, _ABSENT)
            if value is not _ABSENT and repr(value) != repr(parameter.default):  # arrays have no plain ==
                shown.append(f"{name}={value!r}")
        return f"imgaug.{type(self).__name__}({', '.join(shown)})"


def describe_list(name: str, parts: Iterable[Any]) -> str:
    """Return ``imgaug.Name([...])`` with each of ``parts`` on a line of its own."""
    lines = ",\n".join("  " + repr(part).replace("\n", "\n  ") for part in parts)
    return f"imgaug.{name}([\n{lines}])"
