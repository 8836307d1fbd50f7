"""Owns the repetition of a finite DataFlow, and of each of its datapoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.old_names import old_keywords
from dfserve.errors import ConfigError, DatapointError, UnknownLengthError


class RepeatedData(ProxyDataFlow):
    """Several passes over a DataFlow as one, or passes without end."""

    @old_keywords(nr="num")
    def __init__(self, ds: Any, num: int) -> None:
        """Repeat ``ds`` ``num`` times; for ever if ``num`` is negative (tensorpack knows -1 only)."""
        super().__init__(ds)
        self.num = num

    def __len__(self) -> int:
        if self.num < 0:
            raise UnknownLengthError("RepeatedData for ever has no length")
        return len(self.ds) * self.num

    def __iter__(self) -> Iterator[Datapoint]:
        """Start the passes.

        Raises:
            DatapointError: repeating for ever, a whole pass yields nothing. (tensorpack then spins without a word.)
        """
        if self.num >= 0:
            for _ in range(self.num):
                yield from self.ds
            return
        while True:
            empty = True
            for datapoint in self.ds:
                empty = False
                yield datapoint
            if empty:
                raise DatapointError(
                    f"a whole pass over {type(self.ds).__name__} yields nothing, so repeating it for ever would hang:"
                    " is the source empty, does a map drop everything, or is it a generator that runs once?"
                )


class RepeatedDataPoint(ProxyDataFlow):
    """Each datapoint several times in a row: the same object, so change copies only."""

    @old_keywords(nr="num")
    def __init__(self, ds: Any, num: int) -> None:
        """Yield each datapoint of ``ds`` ``num`` times.

        Raises:
            ConfigError: ``num`` is below 1.
        """
        super().__init__(ds)
        self.num = int(num)
        if self.num < 1:
            raise ConfigError(f"RepeatedDataPoint: num is {num}; a datapoint comes at least once")

    def __len__(self) -> int:
        return len(self.ds) * self.num

    def __iter__(self) -> Iterator[Datapoint]:
        for datapoint in self.ds:
            for _ in range(self.num):
                yield datapoint
