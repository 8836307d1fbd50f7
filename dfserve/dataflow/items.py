"""Owns the tie between a pass and the other ways to its items: an index, or shards."""

from __future__ import annotations

from typing import Any

# What gives the items of a pass in another way; names that belong together.
_WAYS_TO_ITEMS = (("__getitem__",), ("shard_keys", "open_shard"))


def withdraw_items_of_another_pass(cls: type) -> None:
    """Set to None what ``cls`` inherits from further up than its ``__iter__``."""

    def place(name: str) -> int:
        """Return how far up ``name`` is defined: 0 in ``cls`` itself."""
        return next((place for place, base in enumerate(cls.__mro__) if name in vars(base)), len(cls.__mro__))

    for names in _WAYS_TO_ITEMS:
        if all(hasattr(cls, name) for name in names) and place("__iter__") < min(map(place, names)):
            for name in names:
                # One that is abstract has no items yet, and a subclass is to define it.
                if not getattr(getattr(cls, name), "__isabstractmethod__", False):
                    setattr(cls, name, None)


def method_of(ds: Any, name: str) -> Any:
    """Return the method ``name`` for a pass of the class that defines it, also where a subclass withdrew it."""
    found = next(vars(base)[name] for base in type(ds).__mro__ if vars(base).get(name) is not None)
    return found.__get__(ds)
