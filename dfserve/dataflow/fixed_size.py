"""Owns passes of a fixed length over a source of another length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.dataflow.repeat import RepeatedData
from dfserve.dataflow.resumable import Position
from dfserve.errors import ConfigError


class FixedSizeData(ProxyDataFlow):
    """Passes of a fixed number of datapoints; the source is repeated where it has fewer.

    With a source of 1 2 3 4 5, passes of 3 are 1 2 3, 4 5 1, 2 3 4 ... with ``keep_state``, else 1 2 3, 1 2 3 ...
    """

    def __init__(self, ds: Any, size: int, keep_state: bool = True) -> None:
        """Yield ``size`` datapoints of ``ds`` in every pass.

        Args:
            ds: a DataFlow.
            size: datapoints in a pass; at least 1.
            keep_state: a pass goes on in the source where the last one stopped, also where that was given up half way:
                every datapoint is handed out once. (Two passes at the same time share what comes.) Else each pass
                begins at the beginning of ``ds``, which then never gets beyond ``size``.

        Raises:
            ConfigError: ``size`` is below 1.
        """
        super().__init__(ds)
        self._size = int(size)
        self._keep = keep_state
        self._kept: Iterator[Datapoint] | None = None
        self._position = Position("FixedSizeData", "taken")  # datapoints handed out in this pass
        if self._size < 1:
            raise ConfigError(f"FixedSizeData: size is {size}; a pass has at least 1 datapoint")

    def __len__(self) -> int:
        return self._size

    def reset_state(self) -> None:
        super().reset_state()
        self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # an iterator does not travel; a worker begins at the beginning

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DatapointError: a whole pass over the source yields nothing.
        """
        with self._position.passing() as taken:
            datapoints = self._kept or iter(RepeatedData(self.ds, -1))
            if self._keep:
                self._kept = datapoints
            yield from self._rest(datapoints, taken)

    def _rest(self, datapoints: Iterator[Datapoint], taken: int) -> Iterator[Datapoint]:
        try:
            for datapoint in islice(datapoints, self._size - taken):
                self._position.number += 1
                yield datapoint
        except GeneratorExit:  # the pass is given up; the source stays where it is
            raise
        except BaseException:  # also a Ctrl-C in the source: what raised is at its end, so the next pass begins anew
            self._kept = None
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the position; raises ConfigError without ``keep_state`` too, for then every pass starts over."""
        self._check_keeps()
        return self._position.state(self.ds)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._check_keeps()
        self._position.load(self.ds, state, self._size)
        self._kept = None

    def _check_keeps(self) -> None:
        if not self._keep:
            raise ConfigError(
                "FixedSizeData(..., keep_state=False) has no position: each of its passes starts over in the source;"
                " leave keep_state at True"
            )
