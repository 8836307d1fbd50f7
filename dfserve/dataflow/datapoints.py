"""Owns what a datapoint may be, the making of one from what another library's data set yields, and its outline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfserve.errors import DatapointError


def as_datapoint(item: Any, position: int) -> Any:
    """Make a datapoint of an item.

    A list, tuple or dict is one; other mappings become dicts; anything else (a tensor, an image, a number, a str) is a
    datapoint of one component, ``[item]``: that is what a Dataset that returns just a tensor means.

    Args:
        item: what the data set yielded.
        position: its place in the pass, shard or data set, for the message.

    Raises:
        DatapointError: ``item`` is None.
    """
    if isinstance(item, (list, tuple, dict)):
        return item
    if isinstance(item, Mapping):
        return dict(item)
    if item is None:
        raise DatapointError(
            f"item {position} of the pipeline is None: is a 'return' missing, or could an image not be read?"
            " To drop items, use MapData"
        )
    return [item]


def outline(datapoint: Any) -> str:
    """Return what a message says of a datapoint: its type, and its keys or how many components it has."""
    kind = type(datapoint).__name__
    if isinstance(datapoint, dict):
        return f"a {kind} with the keys {list(datapoint)}"
    return f"a {kind} of {len(datapoint)} components" if isinstance(datapoint, (list, tuple)) else f"a bare {kind}"
