"""Owns a pass over a source whose items can be had by their number: in order, or shuffled anew for every pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from dfserve.dataflow.base import RNGDataFlow
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.items import method_of
from dfserve.dataflow.policy import OnError, Tally
from dfserve.errors import ConfigError


class Indexed(RNGDataFlow):
    """A source with a length and ``ds[index]``; ``index`` counts in one order, whatever the order of the passes."""

    def __init__(self, shuffle: bool, on_error: OnError = "raise") -> None:
        """Pass over the items in order or, with ``shuffle``, in a new order every time.

        Args:
            shuffle: a new order for every pass.
            on_error: what a pass does with an item that cannot be read; a missing package always raises.

        Raises:
            ConfigError: ``shuffle`` is text: a folder in the wrong place, mostly.
        """
        given: Any = shuffle
        if isinstance(given, str):
            raise ConfigError(f"shuffle is {given!r}, a text; give the folder by its keyword, dir={given!r}")
        self.shuffle = shuffle
        self._tally = Tally(on_error, type(self).__name__)

    @abstractmethod
    def __getitem__(self, index: int) -> list[Any]:
        """Return item ``index``."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Start a pass.

        Raises:
            Exception: what reading an item raises, mostly DatapointError, with ``on_error="raise"``.
            TooManyErrors: more was skipped than the limits allow.
        """
        order = np.arange(len(self))
        if self.shuffle:
            self.rng.shuffle(order)
        item = method_of(self, "__getitem__")
        for index in order.tolist():
            try:
                datapoint = item(index)
            except ImportError:
                raise  # a package that is missing is no failure of an item, and is not for the policy
            except Exception as error:  # noqa: BLE001  # whatever a subclass, or an odd path, raises
                attach_key(error, None, index)
                self._tally.bad(error)
                continue
            self._tally.good()
            yield datapoint
