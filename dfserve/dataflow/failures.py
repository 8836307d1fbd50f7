"""Owns which item an exception was about: the key of a datapoint that failed.

The exception keeps its type and its text; the key travels with it as an attribute, from where the item was known to
whoever reports the failure.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from dfserve.errors import PipelineError

_ATTRIBUTE = "dfserve_key"
# Characters. A path is shorter (PATH_MAX is 4,096 bytes); a component of text need not travel whole in a report.
_LONGEST_KEY = 1024


def attach_key(error: BaseException, datapoint: Any, position: int) -> None:
    """Note on ``error``, which is in flight, which item it is about. The first key noted, the innermost, stays.

    Args:
        error: the exception.
        datapoint: what was being worked on; its first string or path component, the file name, becomes the key.
        position: the item's place in the pass, from 0: the key of a datapoint without a string.
    """
    # A class that takes no attributes, or makes a fuss: its report has no key, and the error itself matters more.
    with contextlib.suppress(Exception):
        if hasattr(error, _ATTRIBUTE):
            return
        name = name_of(datapoint)
        setattr(error, _ATTRIBUTE, str(position) if name is None else name)


def key_of(error: BaseException, default: str = "") -> str:
    """Return the key of the item that ``error``, or what caused it, is about; ``default`` where none was noted."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        key = vars(link).get(_ATTRIBUTE) or (link.key if isinstance(link, PipelineError) else None)
        if isinstance(key, str) and key:
            return key
        seen.add(id(link))
        link = link.__cause__
    return default


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or what can be said of an error whose text cannot be had."""
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001  # whatever somebody's __str__ raises
        return f"its text cannot be had: {type(other).__name__}"


def name_of(datapoint: Any) -> str | None:
    """Return the first string or path component of a datapoint, a file name mostly, cut to 1024 characters."""
    if isinstance(datapoint, dict):
        components = iter(datapoint.values())
    elif isinstance(datapoint, (list, tuple)):
        components = iter(datapoint)
    else:
        components = iter((datapoint,))
    for component in components:
        if isinstance(component, str):
            return component[:_LONGEST_KEY]
        if isinstance(component, os.PathLike):
            return os.fsdecode(component)[:_LONGEST_KEY]
    return None
