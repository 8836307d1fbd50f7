"""Owns the tie between a pass and the other ways to its items: an index, or shards."""

from __future__ import annotations

from typing import Any

# What gives the items of a pass in another way; names that belong together.
_WAYS_TO_ITEMS = (("__getitem__",), ("shard_keys", "open_shard"))


def how_far_up(cls: type, name: str) -> int:
    """Return how far up ``cls`` has ``name`` from: 0 is ``cls`` itself, and nowhere is further than anywhere."""
    return next((place for place, base in enumerate(cls.__mro__) if name in vars(base)), len(cls.__mro__))


def withdraw_items_of_another_pass(cls: type) -> None:
    """Set to None what ``cls`` inherits from further up than its ``__iter__``."""
    for names in _WAYS_TO_ITEMS:
        if not all(hasattr(cls, name) for name in names):
            continue
        if how_far_up(cls, "__iter__") < min(how_far_up(cls, name) for name in names):
            for name in names:
                # One that is abstract has no items yet, and a subclass is to define it.
                if not getattr(getattr(cls, name), "__isabstractmethod__", False):
                    setattr(cls, name, None)


def method_of(ds: Any, name: str) -> Any:
    """Return the method ``name`` for a pass of the class that defines it, also where a subclass withdrew it."""
    found = next(vars(base)[name] for base in type(ds).__mro__ if vars(base).get(name) is not None)
    return found.__get__(ds)
