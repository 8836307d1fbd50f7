"""Owns what may stand for a pipeline besides a DataFlow: map-style data sets, lists, and any iterable."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from dfserve.dataflow.base import DataFlow, Datapoint, ProxyDataFlow, UnknownLengthError, known_length
from dfserve.dataflow.failures import DatapointError, attach_key
from dfserve.dataflow.sources import DataFromGenerator
from dfserve.errors import FactoryError


def as_dataflow(obj: Any) -> DataFlow:
    """Make a DataFlow of what a factory returned.

    - A DataFlow stays what it is; one of tensorpack's (anything with ``reset_state`` and ``__iter__``) is passed on to.
    - An object with ``__len__`` and ``__getitem__`` (a map-style Dataset of torch, a list, an ndarray) yields its items
      0 .. len-1, in that order.
    - Any other iterable (a torch IterableDataset or DataLoader, a generator) is iterated, anew for every pass; a
      generator can run one pass only, and the next one raises DatapointError.

    In the last two cases an item that is a list, tuple or dict is a datapoint, other mappings become dicts, and
    anything else (a tensor, an image, a number, a str) is a datapoint of one component, ``[item]``: that is
    what a Dataset that returns just a tensor means. An item of None raises DatapointError.

    Raises:
        FactoryError: none of these; it says what to return.
    """
    if isinstance(obj, DataFlow):
        return obj
    if isinstance(obj, (type, Mapping, str, bytes)):
        raise FactoryError(f"{_name(obj)} is no pipeline; {_REMEDY}")
    if hasattr(obj, "reset_state") and hasattr(obj, "__iter__"):
        return _Foreign(obj)
    if _has_items(obj):
        return _Indexed(obj)
    if hasattr(type(obj), "__iter__") or hasattr(type(obj), "__getitem__"):
        return _Iterated(obj)
    raise FactoryError(f"{_name(obj)} is no pipeline; {_REMEDY}")


_REMEDY = "return a DataFlow, an object with __len__ and __getitem__ (a list, a Dataset), or an iterable of datapoints"


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
        try:
            return _as_datapoint(self._items[index], index)
        except Exception as error:
            attach_key(error, None, index)
            raise

    def __iter__(self) -> Iterator[Datapoint]:
        for index in range(len(self)):
            yield self[index]


class _Iterated(ProxyDataFlow):
    """What an iterable yields, anew for every pass."""

    def __init__(self, iterable: Any) -> None:
        # An iterable that is callable too is to be iterated; DataFromGenerator would call it.
        super().__init__(DataFromGenerator((lambda: iterable) if callable(iterable) else iterable))

    def __iter__(self) -> Iterator[Datapoint]:
        for position, item in enumerate(self.ds):
            yield _as_datapoint(item, position)


def _as_datapoint(item: Any, position: int) -> Datapoint:
    if isinstance(item, (list, tuple, dict)):
        return item
    if isinstance(item, Mapping):
        return dict(item)
    if item is None:
        raise DatapointError(
            f"item {position} of the pipeline is None: is a 'return' missing, or could an image not be read?"
            " To drop items, use MapData"
        )
    return [item]


def _has_items(obj: Any) -> bool:
    """Tell whether ``obj`` is to be indexed. torch's IterableDataset inherits a __getitem__ that only raises."""
    if not hasattr(type(obj), "__getitem__") or known_length(obj) is None:
        return False
    return not any(base.__name__ == "IterableDataset" for base in type(obj).__mro__)


def _name(obj: Any) -> str:
    """Name what the factory returned, with what the user probably meant."""
    if obj is None:
        return "None (is a 'return' missing?)"
    if isinstance(obj, type):
        return f"the class {obj.__name__} (return an instance of it)"
    if isinstance(obj, (types.FunctionType, types.MethodType)):
        return f"the function {obj.__name__} (return what it returns: call it)"
    if isinstance(obj, Mapping):
        return f"a {type(obj).__name__} with the keys {list(obj)[:5]} (return one of its values)"
    return f"an object of type {type(obj).__name__}"
