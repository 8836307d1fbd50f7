"""Owns what may stand for a pipeline besides a DataFlow: map-style data sets, lists, and any iterable."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from dfserve.dataflow.base import DataFlow, Datapoint, ProxyDataFlow, known_length
from dfserve.dataflow.datapoints import as_datapoint
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.sharded import DataFromShards
from dfserve.dataflow.sources import DataFromIterable
from dfserve.errors import ConfigError, FactoryError, UnknownLengthError


def as_dataflow(obj: Any) -> DataFlow:
    """Make a DataFlow of what a factory returned.

    - A DataFlow stays what it is; one of tensorpack's (anything with ``reset_state`` and ``__iter__``) is passed on to.
    - An object with ``shard_keys`` and ``open_shard`` yields its shards, one after the other.
    - An object with ``__len__`` and ``__getitem__`` (a map-style Dataset of torch or Hugging Face, a list, an ndarray)
      yields its items 0 .. len-1, in that order, and can be indexed.
    - Any other iterable (a torch IterableDataset or DataLoader, a generator) is iterated, anew for every pass; a
      generator can run one pass only, and the next one raises DatapointError.

    In the last three cases an item that is a list, tuple or dict is a datapoint, other mappings become dicts, and
    anything else (a tensor, an image, a number, a str) is a datapoint of one component, ``[item]``: that is
    what a Dataset that returns just a tensor means. An item of None raises DatapointError.

    Raises:
        FactoryError: none of these; it says what to return.
    """
    flow = _adapted(obj)
    if flow is None:
        raise FactoryError(f"{_name(obj)} is no pipeline; return {_PIPELINES}")
    return flow


def as_source(obj: Any) -> Any:
    """Make a source of what an operator was given: ``obj`` itself if it has ``reset_state``, else ``as_dataflow``'s.

    Raises:
        ConfigError: it is nothing that yields datapoints; it says what to give.
    """
    if not isinstance(obj, type) and hasattr(obj, "reset_state"):
        return obj
    flow = _adapted(obj)
    if flow is None:
        raise ConfigError(f"{_name(obj)} is no source of datapoints; give {_PIPELINES}")
    return flow


_PIPELINES = "a DataFlow, an object with __len__ and __getitem__ (a list, a Dataset), or an iterable of datapoints"


def _adapted(obj: Any) -> DataFlow | None:
    if isinstance(obj, DataFlow):
        return obj
    if isinstance(obj, (type, Mapping, str, bytes)):
        return None
    if hasattr(obj, "reset_state") and hasattr(obj, "__iter__"):
        return _Foreign(obj)
    if hasattr(obj, "shard_keys") and hasattr(obj, "open_shard"):
        return DataFromShards(obj.shard_keys(), obj.open_shard)
    if _has_items(obj):
        return _Indexed(obj)
    if hasattr(type(obj), "__iter__") or hasattr(type(obj), "__getitem__"):
        return _Iterated(obj)
    return None


class _Foreign(ProxyDataFlow):
    """A DataFlow that is not ours: only the way it says that it has no length differs."""

    def __len__(self) -> int:
        length = known_length(self.ds)
        if length is None:
            raise UnknownLengthError(f"{type(self.ds).__name__} does not know its length")
        return length


class _Indexed(DataFlow):
    """The items 0 .. len-1 of an object."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Datapoint:
        # The object may have no end of its own: only its length tells where that is.
        return self._item(place_of(index, len(self)))

    def __iter__(self) -> Iterator[Datapoint]:
        for place in range(len(self)):
            yield self._item(place)

    def _item(self, place: int) -> Datapoint:
        try:
            return as_datapoint(self._items[place], place)
        except Exception as error:
            attach_key(error, None, place)
            raise


class _Iterated(ProxyDataFlow):
    """What an iterable yields, anew for every pass."""

    def __init__(self, iterable: Any) -> None:
        super().__init__(DataFromIterable(iterable))

    def __iter__(self) -> Iterator[Datapoint]:
        for position, item in enumerate(self.ds):
            yield as_datapoint(item, position)


def _has_items(obj: Any) -> bool:
    """Tell whether ``obj`` is to be indexed. torch's IterableDataset inherits a __getitem__ that only raises."""
    if getattr(type(obj), "__getitem__", None) is None or known_length(obj) is None:
        return False
    return not any(base.__name__ == "IterableDataset" for base in type(obj).__mro__)


def _name(obj: Any) -> str:
    """Name what was returned or given, with what the user probably meant."""
    if obj is None:
        return "None (is a 'return' missing?)"
    if isinstance(obj, type):
        return f"the class {obj.__name__} (make an instance of it)"
    if isinstance(obj, (types.FunctionType, types.MethodType)):
        return f"the function {obj.__name__} (call it: what it returns is meant)"
    if isinstance(obj, Mapping):
        return f"a {type(obj).__name__} with the keys {list(obj)[:5]} (one of its values is meant)"
    return f"an object of type {type(obj).__name__}"
