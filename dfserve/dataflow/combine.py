"""Owns the operators that make one DataFlow of several: by chance, mixed, one after the other, or side by side."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np

from dfserve.dataflow.base import DataFlow, Datapoint, RNGDataFlow, known_length
from dfserve.errors import ConfigError, DatapointError

log = logging.getLogger("dfserve.dataflow")

_ENDED = object()
# Probabilities are written with a few digits: 0.333 three times is a slip, 0.333333333 is not.
_ROUNDING = 1e-6


class _Several(DataFlow):
    """The base of operators over several sources, ``self.df_lists``, each of which is reset once."""

    def __init__(self, df_lists: Sequence[Any]) -> None:
        from dfserve.dataflow.adapt import as_source  # which imports all kinds of sources

        if not isinstance(df_lists, (list, tuple)) or not df_lists:
            raise ConfigError(f"{type(self).__name__} takes a list of at least one DataFlow, not {df_lists!r}")
        self.df_lists: list[Any] = [as_source(ds) for ds in df_lists]

    def reset_state(self) -> None:
        for ds in {id(ds): ds for ds in self.df_lists}.values():  # one may be given more than once
            ds.reset_state()


class _SeveralByChance(_Several, RNGDataFlow):
    def reset_state(self) -> None:
        RNGDataFlow.reset_state(self)
        _Several.reset_state(self)


class ConcatData(_Several):
    """The datapoints of several DataFlows, one DataFlow after the other."""

    def __init__(self, df_lists: Sequence[Any]) -> None:
        """Go through each of the DataFlows of the list ``df_lists``, in its order."""
        super().__init__(df_lists)

    def __len__(self) -> int:
        return sum(len(ds) for ds in self.df_lists)

    def __iter__(self) -> Iterator[Datapoint]:
        for ds in self.df_lists:
            yield from ds


class JoinData(_Several):
    """Datapoints side by side: the components of one datapoint of each DataFlow in one, lists or dicts.

    A pass ends with the shortest of the passes, and ``len()`` is the smallest of the lengths. What the others yielded
    beyond it is dropped; different lengths, where known, are told in the log.
    """

    def __init__(self, df_lists: Sequence[Any]) -> None:
        """Join the DataFlows of the list ``df_lists``: all of lists (or tuples), or all of dicts with different keys.

        One that is there twice makes two passes at the same time.
        """
        super().__init__(df_lists)
        lengths = {length for ds in self.df_lists if (length := known_length(ds)) is not None}
        if len(lengths) > 1:
            log.warning("JoinData: the lengths are %s; a pass ends after %d", sorted(lengths), min(lengths))

    def __len__(self) -> int:
        """Return the smallest length; raises UnknownLengthError if one is unknown."""
        return min(len(ds) for ds in self.df_lists)

    def __iter__(self) -> Iterator[Datapoint]:
        """Start a pass.

        Raises:
            DatapointError: lists meet dicts, or two of the dicts have the same key.
        """
        for position, parts in enumerate(zip(*self.df_lists, strict=False)):
            if all(isinstance(part, dict) for part in parts):
                yield _merged(parts, position)
            elif all(isinstance(part, (list, tuple)) for part in parts):
                yield [component for part in parts for component in part]
            else:
                raise DatapointError(
                    f"JoinData: datapoint {position} consists of {', '.join(type(part).__name__ for part in parts)};"
                    " they must be all lists or tuples, or all dicts: convert them in a map"
                )


def _merged(parts: Sequence[dict[Any, Any]], position: int) -> dict[Any, Any]:
    joined: dict[Any, Any] = {}
    for place, part in enumerate(parts):
        if twice := joined.keys() & part.keys():
            raise DatapointError(
                f"JoinData: datapoint {position} of DataFlow {place} has keys that one before it has too:"
                f" {sorted(map(str, twice))}; rename or drop them in a map"
            )
        joined.update(part)
    return joined


class RandomChooseData(_SeveralByChance):
    """Datapoints each of which comes from a DataFlow chosen by chance.

    A pass ends when the DataFlow that was chosen has no more; ``len()`` is therefore unknown. So give DataFlows that do
    not end (RepeatedData), or the shortest decides.
    """

    def __init__(self, df_lists: Sequence[Any]) -> None:
        """Choose among the DataFlows of ``df_lists``.

        Args:
            df_lists: a list of DataFlows, chosen alike, or of (DataFlow, probability) pairs. A pair is a list or tuple
                of two, the second of which is a number.

        Raises:
            ConfigError: pairs beside others, or probabilities that are negative or whose sum is not 1.
        """
        pairs = [entry for entry in df_lists if _is_pair(entry)] if isinstance(df_lists, (list, tuple)) else []
        if pairs and len(pairs) < len(df_lists):
            raise ConfigError(
                f"RandomChooseData: {len(pairs)} of the {len(df_lists)} entries have a probability; give it for all, or"
                " for none"
            )
        super().__init__([ds for ds, _ in pairs] if pairs else df_lists)
        count = len(self.df_lists)
        self.probabilities = [float(p) for _, p in pairs] if pairs else [1 / count] * count
        _check_probabilities(self.probabilities)

    def __iter__(self) -> Iterator[Datapoint]:
        # Exactly 1 at the last source that is ever chosen, so that no rounding leads past it.
        below = np.cumsum(self.probabilities)
        bounds = (below / below[-1]).tolist()
        passes = [iter(ds) for ds in self.df_lists]
        while True:
            datapoint = next(passes[bisect_right(bounds, self.rng.random_sample())], _ENDED)
            if datapoint is _ENDED:
                return
            yield datapoint


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], Real)


def _check_probabilities(probabilities: list[float]) -> None:
    total = math.fsum(probabilities)
    if not all(p >= 0 for p in probabilities) or not abs(total - 1) <= _ROUNDING:
        raise ConfigError(
            f"the probabilities are {probabilities}, their sum {total:g}; they must not be negative, and sum up to 1:"
            " divide each by the sum"
        )


class RandomMixData(_SeveralByChance):
    """All datapoints of several DataFlows, mixed so that every interleaving is equally likely.

    Each DataFlow's datapoints keep their order. A pass takes ``len(ds)`` datapoints of each: fewer of one whose pass
    ends before, and never more, so that one that does not end (but has a length) may be mixed too.
    """

    def __init__(self, df_lists: Sequence[Any]) -> None:
        """Mix the DataFlows of the list ``df_lists``.

        Raises:
            ConfigError: one of them does not know its length.
        """
        super().__init__(df_lists)
        for place, ds in enumerate(self.df_lists):
            if known_length(ds) is None:
                raise ConfigError(
                    f"RandomMixData needs to know how many datapoints to mix, and entry {place}, {type(ds).__name__},"
                    " has no length: use RandomChooseData, or give it one with FixedSizeData"
                )

    def __len__(self) -> int:
        return sum(len(ds) for ds in self.df_lists)

    def __iter__(self) -> Iterator[Datapoint]:
        count = len(self.df_lists)
        # The smallest type, for the order has an entry for each datapoint of a pass.
        choices = np.arange(count, dtype=np.min_scalar_type(count))
        order = np.repeat(choices, [len(ds) for ds in self.df_lists])
        self.rng.shuffle(order)
        passes = [iter(ds) for ds in self.df_lists]
        for choice in order:
            datapoint = next(passes[choice], _ENDED)
            if datapoint is not _ENDED:
                yield datapoint
