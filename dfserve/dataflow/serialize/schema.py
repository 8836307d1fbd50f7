"""Owns what a file says of its datapoints: the kind and components of the first one, for people and for checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfserve.dataflow.base import Datapoint

MOST = 256  # components described; a datapoint of more is no record of anything
_KEY_CHARACTERS = 200


def describe(datapoint: Datapoint) -> dict[str, Any]:
    """Return the schema of a datapoint, in types that JSON has.

    Returns:
        ``kind`` ("list", "tuple" or "dict"), ``count`` (components), and ``components``: for each of the first 256 its
        ``type``, of a dict its ``key`` as text, and of arrays and numpy scalars ``dtype`` and ``shape``.
    """
    keyed = type(datapoint) is dict
    entries = list(datapoint.items() if keyed else enumerate(datapoint))
    components = []
    for key, value in entries[:MOST]:
        component: dict[str, Any] = {"key": str(key)[:_KEY_CHARACTERS]} if keyed else {}
        component["type"] = type(value).__name__
        if isinstance(value, np.ndarray | np.generic):
            component |= {"dtype": str(value.dtype), "shape": list(value.shape)}
        components.append(component)
    return {"kind": type(datapoint).__name__, "count": len(entries), "components": components}
