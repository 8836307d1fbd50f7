"""Owns the keeping of a whole pass in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow, RNGDataFlow


class CacheData(ProxyDataFlow, RNGDataFlow):
    """The datapoints of the first pass over a DataFlow, kept in memory for all later passes.

    Only a pass that reached its end counts: after one that was given up, or that failed, the next one reads the source
    again. (tensorpack's then takes the part for the whole.) All passes hand out the same objects: change copies only.
    The cache belongs to a process: ``reset_state()`` empties it, and it does not travel to a worker.
    """

    def __init__(self, ds: Any, shuffle: bool = False) -> None:
        """Keep the datapoints of ``ds``.

        Args:
            ds: a DataFlow whose pass ends, and fits into memory.
            shuffle: a new order for every pass out of the cache. The first pass has the source's order.
        """
        ProxyDataFlow.__init__(self, ds)
        self.shuffle = shuffle
        self._cache: list[Datapoint] | None = None

    def reset_state(self) -> None:
        ProxyDataFlow.reset_state(self)
        RNGDataFlow.reset_state(self)
        self._cache = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __len__(self) -> int:
        return len(self.ds) if self._cache is None else len(self._cache)

    def __iter__(self) -> Iterator[Datapoint]:
        cache = self._cache
        if cache is None:
            yield from self._first_pass()
        elif self.shuffle:
            for place in self.rng.permutation(len(cache)).tolist():
                yield cache[place]
        else:
            yield from cache

    def _first_pass(self) -> Iterator[Datapoint]:
        seen = []
        for datapoint in self.ds:
            seen.append(datapoint)
            yield datapoint
        self._cache = seen
