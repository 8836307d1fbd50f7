"""Owns the measurement of how fast a DataFlow yields datapoints in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow
from dfserve.errors import DatapointError


class TestDataSpeed(ProxyDataFlow):
    """A measurement of a DataFlow's speed: ``TestDataSpeed(ds).start()``. Iterating it measures first, then yields."""

    __test__ = False  # its name makes pytest take it for a test case

    def __init__(self, ds: Any, size: int = 5000, warmup: int = 0) -> None:
        """Measure ``ds`` over ``size`` datapoints (fewer, if its pass is shorter), after ``warmup`` uncounted ones."""
        super().__init__(ds)
        self.test_size = int(size)
        self.warmup = int(warmup)
        self._reset = False

    def reset_state(self) -> None:
        super().reset_state()
        self._reset = True

    def __iter__(self) -> Iterator[Datapoint]:
        self.start()
        yield from self.ds

    # It takes one datapoint at a time.
    state_dict = ProxyDataFlow.state_dict
    load_state_dict = ProxyDataFlow.load_state_dict

    def start(self) -> float:
        """Measure, print one line on stderr (with a progress bar on a terminal that has tqdm) and return the rate.

        Resets ``ds`` unless that was done through this object.

        Returns:
            Datapoints per second.

        Raises:
            DatapointError: the pass ended during the warm-up, so there is nothing to measure.
        """
        if not self._reset:
            self.reset_state()
        datapoints = iter(self.ds)
        warmed = sum(1 for _ in islice(datapoints, self.warmup))
        begin = time.perf_counter()
        count = sum(1 for _ in _with_progress(islice(datapoints, self.test_size), self.test_size))
        seconds = time.perf_counter() - begin
        if not count:
            raise DatapointError(
                f"nothing to measure: the pass of {type(self.ds).__name__} ended after {warmed} datapoints, warmup is"
                f" {self.warmup} and size {self.test_size}; lower warmup, or repeat the source (RepeatedData)"
            )
        rate = count / seconds
        sys.stderr.write(f"{type(self.ds).__name__}: {count} datapoints in {seconds:.2f} s, {rate:.1f} datapoints/s\n")
        return rate


def _with_progress(datapoints: Iterable[Datapoint], total: int) -> Iterable[Datapoint]:
    if not sys.stderr.isatty():
        return datapoints
    try:
        from tqdm import tqdm
    except ImportError:  # it comes with dfserve[producer]; a bar is no reason to fail
        return datapoints
    bar: Iterable[Datapoint] = tqdm(datapoints, total=total, smoothing=0.2)
    return bar
