"""Owns shuffling within a buffer: for sources that are too large, or too slow at random access, to shuffle whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow, RNGDataFlow
from dfserve.dataflow.old_names import old_keywords
from dfserve.errors import ConfigError


class LocallyShuffleData(ProxyDataFlow, RNGDataFlow):
    """The datapoints of a DataFlow in an order that is random within a buffer.

    The buffer is a queue that is shuffled now and then: a datapoint enters at its end and leaves at its head. A pass
    yields exactly what a pass of the source does (each datapoint ``num_reuse`` times), in another order: at the end
    of the source the buffer is shuffled once more and emptied. (tensorpack's runs for ever, and mixes the passes.) A
    pass begins when the buffer is full, or the source at its end.
    """

    @old_keywords(nr_reuse="num_reuse")
    def __init__(self, ds: Any, buffer_size: int, num_reuse: int = 1, shuffle_interval: int | None = None) -> None:
        """Shuffle the datapoints of ``ds``.

        Args:
            ds: a DataFlow.
            buffer_size: datapoints in the buffer. No datapoint comes more than this many places early.
            num_reuse: how often each datapoint is yielded. More spares reading, and shows a model less variety.
            shuffle_interval: shuffle the buffer after this many datapoints of ``ds``; those between two shuffles leave
                in the order that the last one made. Default: a third of the buffer, so that a datapoint is there for
                a few shuffles. With more than the buffer holds, some pass through it in the source's order.

        Raises:
            ConfigError: one of the numbers is below 1.
        """
        ProxyDataFlow.__init__(self, ds)
        self.buffer_size = int(buffer_size)
        self.num_reuse = int(num_reuse)
        self.shuffle_interval = max(1, self.buffer_size // 3) if shuffle_interval is None else int(shuffle_interval)
        for name in ("buffer_size", "num_reuse", "shuffle_interval"):
            if getattr(self, name) < 1:
                raise ConfigError(f"LocallyShuffleData: {name} is {getattr(self, name)}; it is at least 1")

    def reset_state(self) -> None:
        ProxyDataFlow.reset_state(self)
        RNGDataFlow.reset_state(self)

    def __len__(self) -> int:
        return len(self.ds) * self.num_reuse

    def __iter__(self) -> Iterator[Datapoint]:
        buffer: deque[Datapoint] = deque()
        # The first shuffle is when the buffer is full, since nothing leaves before.
        since_shuffle = self.shuffle_interval
        for datapoint in self.ds:
            for _ in range(self.num_reuse):
                if len(buffer) >= self.buffer_size:
                    if since_shuffle >= self.shuffle_interval:
                        buffer, since_shuffle = self._shuffled(buffer), 0
                    yield buffer.popleft()
                buffer.append(datapoint)
            since_shuffle += 1
        yield from self._shuffled(buffer)

    def _shuffled(self, buffer: deque[Datapoint]) -> deque[Datapoint]:
        datapoints = list(buffer)  # a deque is slow in its middle, and numpy at shuffling objects
        return deque(datapoints[place] for place in self.rng.permutation(len(datapoints)).tolist())
