"""Owns the repetition of a finite DataFlow, and of each of its datapoints."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.old_names import old_keywords
from dfserve.dataflow.resumable import Position, known_state, state_of
from dfserve.errors import ConfigError, DatapointError, UnknownLengthError


class RepeatedData(ProxyDataFlow):
    """Several passes over a DataFlow as one, or passes without end."""

    @old_keywords(nr="num")
    def __init__(self, ds: Any, num: int) -> None:
        """Repeat ``ds`` ``num`` times; for ever if ``num`` is negative (tensorpack knows -1 only)."""
        super().__init__(ds)
        self.num = num
        self._position = Position("RepeatedData", "passes")  # finished ones, if they are counted

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
            with self._position.passing() as finished:
                for passes in range(finished, self.num):
                    self._position.number = passes
                    yield from self.ds
            return
        for passes in count():
            empty = True
            for datapoint in self.ds:
                empty = False
                yield datapoint
            # The first may be the rest of a pass that was broken off at its end, or that a loaded state was in.
            if empty and passes:
                raise DatapointError(
                    f"a whole pass over {type(self.ds).__name__} yields nothing, so repeating it for ever would hang:"
                    " is the source empty, does a map drop everything, or is it a generator that runs once?"
                )

    def state_dict(self) -> dict[str, Any]:
        return self._position.state(self.ds)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position.load(self.ds, state, max(self.num - 1, 0))


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
        self._position = Position("RepeatedDataPoint", "copies")  # handed out of the datapoint after the source's state

    def __len__(self) -> int:
        return len(self.ds) * self.num

    def __iter__(self) -> Iterator[Datapoint]:
        position = self._position
        with position.passing() as copies:
            datapoints = iter(self.ds)
            before = known_state(self.ds) if self.num > 1 else None
            position.source = before if copies else None
            for datapoint in datapoints:
                for copy in range(copies + 1, self.num + 1):
                    position.number = copy % self.num
                    position.source = before if position.number else None
                    yield datapoint
                copies = 0
                if before is not None:
                    before = state_of(self.ds)

    def state_dict(self) -> dict[str, Any]:
        """Return the position; between the copies of a datapoint it leads to that datapoint again."""
        state = self._position.state(self.ds)
        if self._position.number and self._position.source is None:
            raise ConfigError(
                f"{type(self.ds).__name__} could not tell its position when this pass began, so there is none between"
                " the copies of a datapoint: take it after the last copy"
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position.load(self.ds, state, self.num - 1)
        if self._position.number:
            self._position.source = state["ds"]
