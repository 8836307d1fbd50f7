"""Owns what a datapoint may be, and the making of one from what a data set of another library yields."""

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
