"""Owns what the sender says about a value that cannot travel: what it is, and what to send instead."""

from __future__ import annotations

from typing import Any

import numpy as np

_KINDS = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)


def refusal(value: object) -> str:
    """Return why a value of this type cannot travel, and the remedy."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"is a {name}, which cannot travel: {_remedy(value)}"


def _remedy(value: Any) -> str:
    if isinstance(value, np.ma.MaskedArray):
        return "send value.filled(...), or value.data and value.mask as two components"
    if isinstance(value, np.ndarray):
        return "send np.asarray(value)"
    if isinstance(value, bytearray | memoryview):
        return "send bytes(value)"
    for base in _KINDS:
        if isinstance(value, base):
            return f"only exact types come back as they were sent, so send {base.__name__}(value)"
    if hasattr(value, "__array__"):
        return "send np.asarray(value)"
    return "send arrays, numbers, strings, bytes, None, or lists, tuples, sets and dicts of these"


def not_a_datapoint(value: object) -> str:
    """Return why this is no datapoint, and the remedy."""
    name = type(value).__qualname__
    for kind in (dict, tuple, list):
        if isinstance(value, kind):
            return f"a datapoint is a plain list, tuple or dict, not a {name}: send {kind.__name__}(value)"
    return f"a datapoint is a list, tuple or dict of components, not a {name}: send [value]"


def called(index: int, key: object) -> str:
    """Return how an error names a component: by its index, and by its key in a dict datapoint (else ``None``)."""
    return f"component {index}" if key is None else f"component {index} ({key!r})"
