"""Owns the operators that apply a function to each datapoint, or to one component of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.policy import OnError, Tally


class MapData(ProxyDataFlow):
    """Each datapoint through a function, which may drop it by returning None.

    ``len()`` is that of the source, so it counts what the function drops. An exception of the function goes on with the
    item's key attached (``dfserve.dataflow.failures``): its first string component, else its position in the pass.
    """

    def __init__(self, ds: Any, func: Callable[[Any], Datapoint | None], *, on_error: OnError = "raise") -> None:
        """Apply ``func`` to a shallow copy of each datapoint of ``ds``: it may replace components, not change them.

        Args:
            ds: a DataFlow.
            func: takes a datapoint, returns one, or None to drop it.
            on_error: what to do with a datapoint for which ``func`` raises: ``"raise"``, ``"skip"``, or a
                ``SkipErrors`` with limits and a quarantine file.
        """
        super().__init__(ds)
        self.func = func
        self._tally = Tally(on_error, type(self).__name__)

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            Exception: what ``func`` raises, with ``on_error="raise"``.
            TooManyErrors: more was skipped than the limits allow.
        """
        for position, datapoint in enumerate(self.ds):
            try:
                mapped = self.func(copy(datapoint))
            except Exception as error:  # noqa: BLE001  # whatever the user's function raises
                attach_key(error, datapoint, position)
                self._tally.bad(error)
                continue
            self._tally.good()
            if mapped is not None:
                yield mapped

    # It takes one datapoint at a time, and one that was dropped is past.
    state_dict = ProxyDataFlow.state_dict
    load_state_dict = ProxyDataFlow.load_state_dict


class MapDataComponent(MapData):
    """One component of each datapoint through a function, which may drop the datapoint by returning None."""

    def __init__(
        self, ds: Any, func: Callable[[Any], Any], index: int | str = 0, *, on_error: OnError = "raise"
    ) -> None:
        """Apply ``func`` to ``datapoint[index]``: a position, or the key of a dict. A tuple becomes a list."""
        super().__init__(ds, self._map_component, on_error=on_error)
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
