"""Owns telling whether a pipeline runs dfserve's own code only, which never draws from the global generators."""

from __future__ import annotations

import os
import types
from collections import deque
from typing import Any

import numpy as np

from dfserve.dataflow.rng import PhiloxState
from dfserve.producer.itemwise import Pipeline, adapted
from dfserve.producer.twins import enclosed

_DATA = (type(None), bool, int, float, str, bytes, os.PathLike, deque, np.ndarray, np.generic, np.dtype, PhiloxState)
_CONTAINERS = (list, tuple, set, frozenset)
_MANY = 1000  # entries: a container of so many holds data, and not the parts of an operator
_MOST_OBJECTS = 10_000


def is_ours(pipeline: Pipeline) -> bool:
    """Tell whether nobody else's code runs for an item. A doubt, a function of numpy's say, means that it does."""
    source = pipeline.source
    held = adapted(source)
    if held is not source:
        queue: list[Any] = [] if isinstance(held, (list, tuple, np.ndarray)) else [held]
    else:
        queue = [source]
    queue += pipeline.operators
    seen: set[int] = set()
    for value in queue:  # which grows
        if id(value) in seen:
            continue
        seen.add(id(value))
        parts = _parts(value)
        if parts is None or len(seen) > _MOST_OBJECTS:
            return False
        queue += parts
    return True


def is_foreign(ds: Any) -> bool:
    """Tell whether a DataFlow is of a class that is not dfserve's."""
    return not _is_of_dfserve(type(ds))


def _parts(value: Any) -> list[Any] | None:
    """Return what decides on a value; None if it is somebody else's."""
    if isinstance(value, _DATA):
        return []
    if type(value) in _CONTAINERS:
        return [] if len(value) > _MANY else list(value)
    if type(value) is dict:
        return [] if len(value) > _MANY else list(value.values())
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        return list(enclosed(value)) if _is_of_dfserve(value) else None
    if isinstance(value, type) or not _is_of_dfserve(type(value)):
        return None
    return list(getattr(value, "__dict__", {}).values())


def _is_of_dfserve(what: Any) -> bool:
    return str(what.__module__).startswith("dfserve.")
