"""Owns the stacking of datapoints into batches, and the refusal of those that do not fit together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from dfserve.dataflow.base import Datapoint, ProxyDataFlow, known_length
from dfserve.dataflow.columnwise import Pieces, drawing, draws, stacked_by_column
from dfserve.dataflow.datapoints import outline
from dfserve.dataflow.resumable import Position, known_state
from dfserve.dataflow.stacking import stack
from dfserve.errors import ConfigError, DatapointError


class BatchData(ProxyDataFlow):
    """Batches of datapoints: each component stacked along a new first axis, or gathered in a list.

    The stacked types: ndarrays and numpy scalars keep their dtype, Python floats become float32 (as in tensorpack), and
    str an array of unicode. Deliberately different from tensorpack, because its way loses data:

    - int becomes int64, not int32, and an int beyond int64 is refused; bool becomes bool, not int32;
    - a finite float beyond float32 is refused, it does not become infinite;
    - bytes become an array of bytes, they are not decoded as ASCII; text or bytes that end in NUL are refused, since
      numpy drops what ends so;
    - components of different types, dtypes or shapes, and datapoints with other components than the batch's first, are
      refused; tensorpack casts to the type of the first, ignores what is too much, or yields None for the component.
    """

    def __init__(self, ds: Any, batch_size: int, remainder: bool = False, use_list: bool = False) -> None:
        """Batch the datapoints of ``ds``.

        Args:
            ds: a DataFlow of lists, tuples or dicts. A batch is a list, or a dict with the same keys.
            batch_size: datapoints in a batch.
            remainder: yield a last, smaller batch too; otherwise what is left at the end of a pass is dropped.
            use_list: gather each component in a list, unchanged, whatever its shapes and types.

        Raises:
            ConfigError: ``batch_size`` is below 1; or, without ``remainder``, larger than the length of ``ds``, so that
                there would never be a batch. (Over RemoteDataZMQ, which has a length when producers are there, each
                pass raises that.)
        """
        super().__init__(ds)
        self.batch_size = int(batch_size)
        self.remainder = remainder
        self.use_list = use_list
        self._position = Position("BatchData", "ends")  # 1: the source has ended, but this pass did not say so yet
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: a batch has at least 1 datapoint")
        if draws(self.ds):  # it is to know before it connects, and knows its length only afterwards
            self.ds.expect_draws(self.batch_size)
        else:
            self._check_length()

    def _check_length(self) -> None:
        length = None if self.remainder else known_length(self.ds)
        if length is not None and length < self.batch_size:
            raise ConfigError(
                f"batch_size {self.batch_size} is more than the {length} datapoints of {type(self.ds).__name__}: there"
                " would never be a batch; lower it, repeat the source (RepeatedData), or set remainder=True"
            )

    def __len__(self) -> int:
        full, rest = divmod(len(self.ds), self.batch_size)
        return full + (1 if rest and self.remainder else 0)

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DatapointError: datapoints do not fit together; it names the component, its shapes or types, and the place.
        """
        position = self._position
        with position.passing() as over:
            if over:
                return
            drawn = drawing(self.ds, self.batch_size)
            # What interrupts the filling of a batch leaves the source further on than the last batch.
            position.source = known_state(self.ds)
            known = True  # RemoteDataZMQ has a position after its first datapoint, so it is asked once more
            if draws(self.ds):
                self._check_length()
            while count := sum(map(len, pieces := next(drawn, []))):
                if count == self.batch_size or self.remainder:
                    made = self._made(pieces)
                    pieces.clear()  # the blocks' memory is free while the batch is used
                    if known:
                        position.source = known_state(self.ds)
                        known = position.source is not None
                    position.number = int(count < self.batch_size)
                    yield made
                    del made  # so that its memory, too, may be used for the next one

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch: also if the next one could not be made, or not be filled."""
        return self._position.state(self.ds)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position.load(self.ds, state, 1)

    def _made(self, pieces: Pieces) -> Datapoint:
        if type(self).aggregate_batch is not BatchData.aggregate_batch:  # a subclass has its own way
            return self.aggregate_batch(list(chain.from_iterable(pieces)), self.use_list)
        return batch_of(pieces, self.use_list)

    @staticmethod
    def aggregate_batch(datapoints: Sequence[Datapoint], use_list: bool = False) -> Datapoint:
        """Make one batch of at least one datapoint, as a pass does; raises DatapointError as it does."""
        names = _component_names(datapoints)
        columns: Any = zip(*datapoints, strict=True)
        if isinstance(datapoints[0], dict):
            columns = (map(itemgetter(name), datapoints) for name in names)
        columns = dict(zip(names, map(list, columns), strict=True))
        batch = columns if use_list else {name: stack(column, name) for name, column in columns.items()}
        return batch if isinstance(datapoints[0], dict) else list(batch.values())


def batch_of(pieces: Pieces, use_list: bool = False) -> Datapoint:
    """Make what ``aggregate_batch`` makes of at least one datapoint, where it can be done by whole columns."""
    batch = None if use_list else stacked_by_column(pieces)
    if batch is not None:
        return batch
    return BatchData.aggregate_batch(list(chain.from_iterable(pieces)), use_list)


def _component_names(datapoints: Sequence[Datapoint]) -> Sequence[Hashable]:
    """Return the keys or positions that all the datapoints have in common, and none has more."""
    first = datapoints[0]
    # Nearly all batches are of lists of one length: seen without looking at each by itself.
    if type(first) is list and set(map(type, datapoints)) == {list} and set(map(len, datapoints)) == {len(first)}:
        return range(len(first))
    if type(first) is dict and set(map(type, datapoints)) == {dict}:
        keys = first.keys()
        if all([datapoint.keys() == keys for datapoint in datapoints]):  # noqa: C419  # a generator takes twice as long
            return list(first)
    if not isinstance(first, (list, tuple, dict)):
        raise DatapointError(
            f"BatchData takes lists, tuples and dicts of components, not a bare {type(first).__name__}: wrap it as [x]"
        )
    for place, datapoint in enumerate(datapoints):
        same_kind = isinstance(datapoint, dict if isinstance(first, dict) else (list, tuple))
        if not same_kind or len(datapoint) != len(first) or (same_kind and _keys(datapoint) != _keys(first)):
            raise DatapointError(
                f"BatchData: datapoint {place} of the batch is {outline(datapoint)}, its datapoint 0 {outline(first)}"
            )
    return list(first) if isinstance(first, dict) else range(len(first))


def _keys(datapoint: Any) -> Any:
    return datapoint.keys() if isinstance(datapoint, dict) else None
