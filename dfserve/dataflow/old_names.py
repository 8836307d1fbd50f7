"""Owns tensorpack's old names: get_data() and size() beside __iter__ and __len__, and keywords like nr_proc."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


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


def old_keywords(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function be called with tensorpack's old keywords too, with a DeprecationWarning.

    Args:
        renamed: for each old keyword, the parameter that it means now: ``nr_proc="num_proc"``.
    """

    def accept(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def accepting(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs:
                    raise TypeError(f"{old} is the old name of {new}: give one of them")
                warnings.warn(f"{old} is the old name of {new}", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accepting

    return accept
