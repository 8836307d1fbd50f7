"""Owns the printing of the first datapoints of a DataFlow: what types, shapes and ranges they have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from dfserve.dataflow.base import Datapoint, ProxyDataFlow

_INDENT = "  "
_ORDERED_KINDS = "biuf"  # numpy's kinds of dtype that have a range worth printing
_TEXT_SHOWN = 80  # characters: one line of a terminal


class PrintData(ProxyDataFlow):
    """A DataFlow that passes everything on unchanged and describes its first datapoints on stderr."""

    def __init__(self, ds: Any, num: int = 1, name: str | None = None, max_depth: int = 3, max_list: int = 3) -> None:
        """Describe the first ``num`` datapoints that this object ever yields.

        Args:
            ds: the DataFlow.
            num: datapoints to describe.
            name: what to call the DataFlow in the output; default: the type of ``ds``.
            max_depth: levels of nested lists and dicts to show.
            max_list: entries to show of each nested list or dict.
        """
        super().__init__(ds)
        self.num = num
        self.name = name or type(ds).__name__
        self.max_depth = max_depth
        self.max_list = max_list
        self._printed = 0

    def __iter__(self) -> Iterator[Datapoint]:
        for datapoint in self.ds:
            if self._printed < self.num:
                self._printed += 1
                lines = [f"{self.name}, datapoint {self._printed} of the first {self.num}: {_describe(datapoint)}"]
                lines += self._entries(datapoint, 1, sys.maxsize)
                sys.stderr.write("\n".join(lines) + "\n")
            yield datapoint

    # It takes one datapoint at a time.
    state_dict = ProxyDataFlow.state_dict
    load_state_dict = ProxyDataFlow.load_state_dict

    def _entries(self, value: Any, depth: int, limit: int) -> Iterator[str]:
        """Yield a line for each entry of a list or dict, up to ``limit``, and for theirs."""
        if not isinstance(value, (list, tuple, dict)):
            return
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in islice(pairs, limit):
            yield f"{_INDENT * depth}{key}: {_describe(entry)}"
            if depth < self.max_depth:
                yield from self._entries(entry, depth + 1, self.max_list)
        if len(value) > limit:
            yield f"{_INDENT * depth}... {len(value) - limit} more"


def _describe(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        extent = f" in [{value.min()}, {value.max()}]" if value.size and value.dtype.kind in _ORDERED_KINDS else ""
        return f"{kind} {value.dtype} {value.shape}{extent}"
    if isinstance(value, (list, tuple, dict)):
        return f"{kind} of {len(value)}"
    if isinstance(value, (str, bytes)):
        return f"{kind} of {len(value)}: {value[:_TEXT_SHOWN]!r}"
    return " ".join(f"{kind} {value!r}".split())[:_TEXT_SHOWN]  # what spans lines, a tensor, becomes one
