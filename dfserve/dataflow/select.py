"""Owns the choice and order of components."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from dfserve.dataflow.datapoints import outline
from dfserve.dataflow.mapping import MapData
from dfserve.errors import ConfigError, DatapointError


def SelectComponent(ds: Any, idxs: Sequence[Hashable]) -> MapData:  # noqa: N802  # as in tensorpack: a function
    """Return a DataFlow of lists of some components of each datapoint, in the order of ``idxs``.

    ``SelectComponent(ds, [2, 1])`` makes [c, b] of [a, b, c]; ``SelectComponent(ds, ["image", "label"])`` makes
    [image, label] of a dict: a list too, as in tensorpack.

    Args:
        ds: a DataFlow.
        idxs: the positions (negative: from the end) or keys of the components. A pass over a datapoint without one of
            them raises DatapointError.

    Raises:
        ConfigError: ``idxs`` is a str, or no list.
    """
    if isinstance(idxs, (str, bytes)) or not hasattr(idxs, "__iter__"):
        raise ConfigError(f"idxs is {idxs!r}; it is a list of positions or keys: [{idxs!r}]")
    return MapData(ds, _Selection(tuple(idxs)))


@dataclass(frozen=True)
class _Selection:
    # A class and not a closure, so that it pickles.
    indices: tuple[Hashable, ...]

    def __call__(self, datapoint: Any) -> list[Any]:
        try:
            return [datapoint[index] for index in self.indices]
        except (LookupError, TypeError) as error:
            raise DatapointError(
                f"SelectComponent takes {list(self.indices)}, but a datapoint is {outline(datapoint)}"
            ) from error
