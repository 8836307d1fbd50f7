"""Owns the sources that consist of shards: files or splits that are each read from beginning to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dfserve.dataflow.base import Datapoint, RNGDataFlow
from dfserve.dataflow.datapoints import as_datapoint
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.items import method_of
from dfserve.errors import ConfigError


class ShardedDataFlow(RNGDataFlow, ABC):
    """A source that is read by shards; a subclass says which there are, and opens one.

    The keys name the shards in every process and in every pass, and a shard yields the same datapoints in the same
    order whenever it is opened: so any machine can read any part of the data.
    """

    def __init__(self, shuffle: bool) -> None:
        """Go through the shards in a new random order in every pass if ``shuffle``, else in that of their keys.

        The datapoints of a shard keep their order; ``LocallyShuffleData`` mixes those of neighbouring shards.
        """
        self.shuffle = shuffle

    @abstractmethod
    def shard_keys(self) -> list[str]:
        """Return the key of each shard: no two alike, in the same order every time."""

    @abstractmethod
    def open_shard(self, key: str) -> Iterator[Datapoint]:
        """Read the shard ``key`` from its beginning: yield its datapoints, always the same ones in the same order."""

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass over all shards, one after the other.

        Raises:
            Exception: what reading a shard raises. Its key is the shard's, unless something finer was attached.
        """
        keys = list(method_of(self, "shard_keys")())
        if self.shuffle:
            self.rng.shuffle(keys)
        for key in keys:
            yield from self._shard(key)

    def _shard(self, key: str) -> Iterator[Datapoint]:
        try:
            # Not a loop: so a pass that is closed closes the shard's iterator, and its file, too.
            yield from method_of(self, "open_shard")(key)
        except Exception as error:
            attach_key(error, key, 0)
            raise


class DataFromShards(ShardedDataFlow):
    """The datapoints of named shards, each opened by a function: parquet files, or the splits of an iterable data set.

    ::

        def rows(path):
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()

        ds = DataFromShards(sorted(glob("train-*.parquet")), rows, shuffle=True)

    ``len()`` is unknown: a shard tells how much it holds when it is read.
    """

    def __init__(self, keys: Sequence[str], open_shard: Callable[[str], Iterable[Any]], shuffle: bool = False) -> None:
        """Read the shards ``keys``.

        Args:
            keys: what names each shard, usually its path.
            open_shard: takes a key, returns an iterable of datapoints. Other items are made datapoints as those of a
                Dataset: another mapping becomes a dict, a bare tensor or number a datapoint of one component. To run
                in a worker process that is spawned, the function must pickle: no lambda.
            shuffle: go through the shards in a new random order in every pass; by default in that of ``keys``.

        Raises:
            ConfigError: no keys, a key twice, or one that is no str.
        """
        super().__init__(shuffle)
        self._keys = _checked(keys)
        self._open = open_shard

    def shard_keys(self) -> list[str]:
        return list(self._keys)

    def open_shard(self, key: str) -> Iterator[Datapoint]:
        """Read the shard ``key``.

        Raises:
            ConfigError: the function returned nothing that can be iterated.
            DatapointError: an item is None.
        """
        opened = self._open(key)
        try:
            items = iter(opened)
        except TypeError as error:
            raise ConfigError(
                f"open_shard({key!r}) returned an object of type {type(opened).__name__}: return an iterable of"
                " datapoints, or yield them"
            ) from error
        for position, item in enumerate(items):
            yield as_datapoint(item, position)


def _checked(keys: Sequence[str]) -> list[str]:
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"keys is {keys!r}; it is a list of str, one for each shard")
    if not keys:
        raise ConfigError("there are no shards: keys is empty. Is the pattern or folder right?")
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if list(keys).count(key) > 1)
        raise ConfigError(f"the shard {twice!r} is among the {len(keys)} keys more than once: each key is one shard")
    return list(keys)
