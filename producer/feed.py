"""Owns what stands in for the source while a split is made: it hands out one item, or shard, after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dfserve.dataflow.base import DataFlow, Datapoint
from dfserve.dataflow.failures import attach_key, name_of
from dfserve.dataflow.policy import Tally
from dfserve.errors import ConfigError, UnknownLengthError
from dfserve.producer.streams import ItemStreams

Place = tuple[int, int]  # position in the epoch, index of the item or shard


class NotItemwise(ConfigError):  # noqa: N818  # says what was found
    """A pipeline that turned out, in its run, not to make the outputs of each item for itself."""


class Feed(DataFlow):
    """The items of one split in the order of their positions, one pass over them; a pass that failed is gone on with.

    Attributes:
        source: what the items are taken from.
        total: how many items or shards it has.
        place: the position and index of the item that was fetched last; None before the first of a pass.
        item: that item, or the datapoint of that shard; None while it is fetched.
        ended: a pass was told that there are no more.
        poured: the positions of the items that the last `pour` handed on.
    """

    def __init__(self, source: Any, sharded: bool, streams: ItemStreams) -> None:
        """Take items or shards from ``source``; set ``streams`` for each item, for each datapoint of a shard."""
        self.source = source
        self._streams = streams
        self._fetch = self._shards if sharded else self._items
        self._keys: list[str] = list(source.shard_keys()) if sharded else []
        if len(set(self._keys)) < len(self._keys):
            twice = next(key for key in self._keys if self._keys.count(key) > 1)
            raise ConfigError(f"{type(source).__name__}: the shard {twice!r} is there more than once")
        self._countable = not sharded
        self.total = len(self._keys) if sharded else len(source)
        tally = getattr(source, "_tally", None)
        # The policy of a source that reads its items itself. One that opens shards applies it there.
        self._tally = tally if isinstance(tally, Tally) and not sharded else None
        self._rest: deque[Place] = deque()
        self._at: Callable[[int], object] = bool
        self._key = 0
        self._pass: object = None
        self._thread = 0
        self.place: Place | None = None
        self.item: Any = None
        self.ended = False
        self.poured: list[int] = []

    def begin(self, key: int, places: Iterable[Place], at: Callable[[int], object]) -> None:
        """Hand out the items at ``places``, with the random numbers that ``key`` names; tell ``at`` each position."""
        self._key, self._rest, self._at = key, deque(places), at

    def start_pass(self) -> bool:
        """Prepare for a pass over what is left; False if that is nothing."""
        self._pass, self.place, self.item, self.ended = None, None, None, False
        self._thread = threading.get_ident()
        return bool(self._rest)

    @property
    def left(self) -> int:
        """How many items were not fetched yet."""
        return len(self._rest)

    def name(self) -> str:
        """Return what a report calls the present item: its first text, else the shard's key or the item's index."""
        assert self.place is not None
        index = self.place[1]
        return name_of(self.item) or (self._keys[index] if self._keys else str(index))

    def reset_state(self) -> None:
        self.source.reset_state()

    def __len__(self) -> int:
        if not self._countable:
            raise UnknownLengthError("the datapoints of shards are not counted")
        return self.total

    def __iter__(self) -> Iterator[Datapoint]:
        if self._pass is not None:
            raise NotItemwise("makes more than one pass over its source")
        self._pass = mine = object()
        for datapoint in self._fetch():
            self.item = datapoint
            # An operator that adds to its datapoint must not add to the source's.
            yield datapoint.copy() if type(datapoint) in (list, dict) else datapoint
            if self._pass is not mine:
                return  # of a pass that was given up
        self.place, self.item, self.ended = None, None, True

    @property
    def is_plain(self) -> bool:
        """Whether `items` will do: no shards, no policy of the source's own for items that fail."""
        return self._countable and self._tally is None

    def pour(self, add: Callable[[Any], object]) -> None:
        """Hand what is left to ``add``, with as little around it as can be; see `is_plain`. ``poured`` says how far."""
        source, streams, at, key = self.source, self._streams, self._at, self._key
        rest = list(self._rest)
        self._rest.clear()
        self.poured = []
        position = index = -1
        item = None
        try:
            for position, index in rest:
                item = None
                at(position)
                if streams.needed:
                    streams.go_to(key, index)
                item = source[index]
                add(item)
        except BaseException:
            number = rest.index((position, index))
            self.place, self.item = rest[number], item
            self._rest.extend(rest[number + 1 :])
            self.poured = [position for position, _ in rest[:number]]
            raise
        self.poured = [position for position, _ in rest]

    def _items(self) -> Iterator[Datapoint]:
        source, go_to, key = self.source, self._streams.go_to, self._key
        while self._rest:
            index = self._next()
            go_to(key, index)
            if self._tally is None:
                yield source[index]
                continue
            try:
                item = source[index]
            except ImportError:
                raise  # a package that is missing is no failure of an item
            except Exception as error:  # noqa: BLE001  # the source's policy decides about any of them
                attach_key(error, None, index)
                self._tally.bad(error)
                continue
            self._tally.good()
            yield item

    def _shards(self) -> Iterator[Datapoint]:
        while self._rest:
            index = self._next()
            self._streams.go_to(self._key, index)
            for number, datapoint in enumerate(self.source.open_shard(self._keys[index]), 1):
                yield datapoint
                self.item = None
                self._streams.go_to(self._key, index, number)

    def _next(self) -> int:
        if threading.get_ident() != self._thread:
            raise NotItemwise("reads its source in another thread")
        place = self._rest.popleft()
        self.place, self.item = place, None
        self._at(place[0])
        return place[1]
