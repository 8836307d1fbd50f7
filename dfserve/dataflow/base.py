"""Owns what a DataFlow is: an iterable of datapoints with reset_state() and, optionally, a length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dfserve.dataflow.items import withdraw_items_of_another_pass
from dfserve.dataflow.old_names import join_names, warn_of_old_name
from dfserve.dataflow.resumable import load_into, refuse_state, refuse_to_load, state_of, withdraw_state_of_another_pass
from dfserve.errors import DfserveError, UnknownLengthError

if TYPE_CHECKING:
    import numpy as np

# A list (or tuple) or dict of components. Components are any Python objects, mostly ndarrays, hence no closer type.
Datapoint = Any


class DataFlow(ABC):
    """An iterable of datapoints.

    ``reset_state()`` is called once, in the process that iterates, before the first pass. Each ``iter()`` starts a
    pass, which may be endless. tensorpack's old names ``get_data()`` and ``size()`` work, with a DeprecationWarning,
    and a subclass may define those instead of ``__iter__`` and ``__len__``.

    Some have items beside their passes: ``ds[index]``, or shards (``shard_keys()`` and ``open_shard(key)``). A subclass
    that defines another pass and not the items too has none, since its parent's are not those of its pass: these
    attributes are None in it (``ds[0]`` raises TypeError), while the parent's pass, which ``super()`` reaches, has them
    still. A subclass whose pass does have its parent's items says so: ``__getitem__ = Parent.__getitem__``. The state
    is a pass's too, and what a subclass with another pass inherits of it raises ConfigError.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        join_names(cls, "__iter__", "get_data")
        join_names(cls, "__len__", "size")
        withdraw_items_of_another_pass(cls)
        withdraw_state_of_another_pass(cls)

    @abstractmethod
    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass: yield lists or dicts of components."""

    def __len__(self) -> int:
        """Return the number of datapoints in a pass: a guide, not a promise (a map may drop some).

        Raises:
            UnknownLengthError: there is no such number; the default.
        """
        raise UnknownLengthError(f"{type(self).__name__} does not know its length; iterate it, or define __len__")

    def reset_state(self) -> None:  # noqa: B027 (most DataFlows have nothing to prepare)
        """Prepare this process: random generators, connections, threads. Not to be called twice in a process."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last datapoint that this object handed out: small, of plain JSON types.

        What was read ahead counts as not handed out; of an iterator that is at its end, given up or interrupted, it is
        the position after the last datapoint that came out. What an operator's function dropped or failed at is past.
        Not for another thread, or a signal's handler, while ``next()`` runs.

        RemoteDataZMQ in epochs mode has a position, and the operators that hand out at once all that they take. An
        operator of your own that yields at most one datapoint for each that it takes, and takes none before it is asked
        for the next, says so::

            class Scaled(ProxyDataFlow):
                def __iter__(self):
                    for image, label in self.ds:
                        yield [image / 255, label]

                state_dict = ProxyDataFlow.state_dict
                load_state_dict = ProxyDataFlow.load_state_dict

        Raises:
            ConfigError: this DataFlow has no position; the default.
        """
        return refuse_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next ``iter()`` begin with what followed when ``state`` was taken: the rest of that pass.

        That may be nothing, where the pass was at its end but had not said so. Iterators that exist already are not to
        be used any more. An operator's own random numbers are not part of the state, so let the producers augment.

        Args:
            state: what ``state_dict()`` of the same pipeline returned, also in another process.

        Raises:
            ConfigError: this DataFlow has no position, the default; or ``state`` is not one of it.
        """
        refuse_to_load(self, state)

    def get_data(self) -> Iterator[Datapoint]:
        """Do what ``iter()`` does, under tensorpack's old name. Deprecated."""
        warn_of_old_name("get_data", "__iter__")
        return iter(self)

    def size(self) -> int:
        """Do what ``len()`` does, under tensorpack's old name. Deprecated."""
        warn_of_old_name("size", "__len__")
        return len(self)


class ProxyDataFlow(DataFlow):
    """A DataFlow that passes everything on to another, ``self.ds``; the base of operators."""

    def __init__(self, ds: Any) -> None:
        """Wrap ``ds``.

        Args:
            ds: a DataFlow, or what behaves like one (tensorpack's): ``self.ds`` is that object. Else what has items or
                can be iterated (a list, a Dataset of torch or Hugging Face, an iterable), as a DataFlow of its items.

        Raises:
            ConfigError: it is none of these.
        """
        from dfserve.dataflow.adapt import as_source  # which builds on this module

        self.ds: Any = as_source(ds)

    def reset_state(self) -> None:
        self.ds.reset_state()

    def __len__(self) -> int:
        return len(self.ds)

    def __iter__(self) -> Iterator[Datapoint]:
        return iter(self.ds)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of ``self.ds``, which is right for what yields at most one datapoint for each it takes."""
        return state_of(self.ds)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load ``state`` into ``self.ds``."""
        load_into(self.ds, state)


class RNGDataFlow(DataFlow):
    """A DataFlow with a random generator of its own, ``self.rng``, made by ``reset_state()``."""

    _rng: np.random.RandomState | None = None

    @property
    def rng(self) -> np.random.RandomState:
        """The generator: another stream in every process and after every reset.

        Raises:
            DfserveError: ``reset_state()`` was not called in this process yet.
        """
        if self._rng is None:
            raise DfserveError(
                f"{type(self).__name__} draws random numbers but was not reset: call reset_state() once before"
                " iterating (in a subclass that overrides reset_state, call super().reset_state() too)"
            )
        return self._rng

    @rng.setter
    def rng(self, rng: np.random.RandomState) -> None:
        self._rng = rng

    def reset_state(self) -> None:
        from dfserve.dataflow.rng import get_rng  # here: RemoteDataZMQ starts its broker before numpy is loaded

        self.rng = get_rng(self)


def known_length(ds: Any) -> int | None:
    """Return ``len(ds)``, or None where ``ds`` has no length or does not know it."""
    try:
        return len(ds)
    except (NotImplementedError, TypeError):
        return None
