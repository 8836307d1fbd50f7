"""Owns tensorpack's old method names, get_data() and size(), beside __iter__ and __len__."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any


def join_names(cls: type, new: str, old: str) -> None:
    """Let both names of a method mean what ``cls`` defines under either.

    Every class gets an old name of its own, so that ``super().get_data()`` reaches the parent's pass, not its own.
    """
    own = vars(cls)
    if old not in own:
        setattr(cls, old, _under_old_name(getattr(cls, new), old, new))
    elif new not in own:
        setattr(cls, new, own[old])


def warn_of_old_name(old: str, new: str) -> None:
    """Warn whoever called the method that calls this."""
    warnings.warn(f"DataFlow.{old}() is the old name of {new}()", DeprecationWarning, stacklevel=3)


def _under_old_name(method: Callable[[Any], Any], old: str, new: str) -> Callable[[Any], Any]:
    @functools.wraps(method)
    def renamed(self: Any) -> Any:
        warn_of_old_name(old, new)
        return method(self)

    renamed.__name__ = old
    return renamed
