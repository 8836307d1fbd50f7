"""Owns the operators that apply a function to each datapoint, or to one component of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.failures import attach_key


class MapData(ProxyDataFlow):
    """Each datapoint through a function, which may drop it by returning None.

    ``len()`` is that of the source, so it counts what the function drops. An exception of the function goes on with the
    item's key attached (``dfserve.dataflow.failures``): its first string component, else its position in the pass.
    """

    def __init__(self, ds: Any, func: Callable[[Datapoint], Datapoint | None]) -> None:
        """Apply ``func`` to a shallow copy of each datapoint of ``ds``: it may replace components, not change them."""
        super().__init__(ds)
        self.func = func

    def __iter__(self) -> Iterator[Datapoint]:
        for position, datapoint in enumerate(self.ds):
            try:
                mapped = self.func(copy(datapoint))
            except Exception as error:
                attach_key(error, datapoint, position)
                raise
            if mapped is not None:
                yield mapped


class MapDataComponent(MapData):
    """One component of each datapoint through a function, which may drop the datapoint by returning None."""

    def __init__(self, ds: Any, func: Callable[[Any], Any], index: int | str = 0) -> None:
        """Apply ``func`` to ``datapoint[index]``: a position, or the key of a dict. A tuple becomes a list."""
        super().__init__(ds, self._map_component)
        self._func = func
        self._index = index

    def _map_component(self, datapoint: Any) -> Datapoint | None:
        component = self._func(datapoint[self._index])
        if component is None:
            return None
        # MapData made the copy; only a tuple needs another kind of one.
        mapped: Any = list(datapoint) if isinstance(datapoint, tuple) else datapoint
        mapped[self._index] = component
        return mapped
